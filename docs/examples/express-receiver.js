// A receiver of Chartwire's webhooks in JavaScript: verify, answer pings, keep each message once, answer at once.
//
//     npm install express
//     WEBHOOK_KEY=... PORT=3000 node express-receiver.js

const crypto = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const express = require("express");

const key = Buffer.from(process.env.WEBHOOK_KEY, "utf8"); // of "whsec_...": Buffer.from(secret.slice(6), "base64")
const folder = process.env.MESSAGES ?? "messages";
fs.mkdirSync(folder, { recursive: true });

function isGenuine(body, headers) {
  const id = headers["webhook-id"];
  const timestamp = headers["webhook-timestamp"];
  if (!(Math.abs(Date.now() / 1000 - Number(timestamp)) <= 300)) return false; // old: somebody sends it once more
  const expected = crypto.createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest();
  return (headers["webhook-signature"] ?? "").split(" ").some((each) => { // several, while keys overlap
    const [scheme, proof] = each.split(",");
    const given = Buffer.from(proof ?? "", "base64");
    return scheme === "v1" && given.length === expected.length && crypto.timingSafeEqual(given, expected);
  });
}

function keepOnce(id, body) {
  try {
    fs.writeFileSync(path.join(folder, `${id}.json`), body, { flag: "wx", flush: true }); // in a real app: a unique column
  } catch (error) {
    if (error.code !== "EEXIST") throw error; // it came before, under the same id
  }
}

const app = express();
app.post("/webhook", express.raw({ type: "application/json", limit: "20mb" }), (request, response) => {
  if (!Buffer.isBuffer(request.body) || !isGenuine(request.body, request.headers)) return response.sendStatus(401);
  const message = JSON.parse(request.body);
  if (message.ping) return response.json({ pong: message.ping });
  keepOnce(request.headers["webhook-id"], request.body); // before it is answered; what takes time is done afterwards
  response.sendStatus(200);
});

const server = app.listen(Number(process.env.PORT ?? 3000), "127.0.0.1", () => {
  console.log(`listening on ${server.address().port}`);
});
