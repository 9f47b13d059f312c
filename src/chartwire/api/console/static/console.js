// The console works without this file; with it, times are in the viewer's zone, pages stay fresh, and code is copied.
"use strict";
(() => {
  const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "short" });

  function showTimes(root) {
    for (const time of root.querySelectorAll("time[datetime]:not([data-shown])")) {
      time.dataset.shown = "";
      time.textContent = local.format(new Date(time.dateTime));
    }
  }

  function countDown() {
    for (const place of document.querySelectorAll("[data-until]")) {
      const left = Math.max(0, Math.round((new Date(place.dataset.until) - Date.now()) / 1000));
      const [amount, unit] = left >= 7200 ? [left / 3600, "hour"] : left >= 120 ? [left / 60, "minute"] : [left, "second"];
      place.textContent = relative.format(Math.round(amount), unit);
    }
  }

  document.addEventListener("click", async (click) => {
    const button = click.target.closest("[data-copy]");
    if (!button) return;
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    const label = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = label; }, 1500);
  });

  document.addEventListener("submit", (submit) => {
    const question = submit.target.dataset.confirm;
    if (question && !window.confirm(question)) submit.preventDefault();
  });

  // What the viewer has opened stays open when its part of the page is made anew.
  let opened = [];
  document.addEventListener("htmx:beforeSwap", (swap) => {
    const target = swap.detail.target;
    opened = [...target.querySelectorAll("details[id][open]")].map((each) => each.id);
  });
  document.addEventListener("htmx:afterSettle", () => {
    for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
    showTimes(document);
    countDown();
  });

  document.addEventListener("DOMContentLoaded", () => {
    showTimes(document);
    countDown();
    setInterval(countDown, 1000);
    const address = document.body.dataset.live;
    if (!address) return;
    const stream = new EventSource(address);
    stream.addEventListener("open", () => { document.body.dataset.stream = "open"; });
    stream.addEventListener("news", () => htmx.trigger(document.body, "news"));
    addEventListener("pagehide", () => stream.close());
  });
})();
