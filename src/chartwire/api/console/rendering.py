"""Pages from templates: everything that is put into them is escaped, and a name that is not given is an error."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from chartwire import __version__
from chartwire.api.console import charts, words
from chartwire.clock import iso
from chartwire.model.member import Permission, Role
from chartwire.model.webhook import DeliveryState, EventType, Outcome, PayloadVersion

STATIC = Path(str(files("chartwire.api.console").joinpath("static")))
_KIB = 1024


@dataclass(frozen=True, slots=True)
class Place:
    """An entry of the navigation."""

    path: str
    label: str
    permission: Permission | None = None


PLACES = (
    Place("/console", "Home"),
    Place("/console/webhooks", "Webhooks"),
    Place("/console/events", "Events"),
    Place("/console/attempts", "Attempts"),
    Place("/console/replays", "Replays"),
    Place("/console/patients", "Patients", Permission.READ_RECORDS),
    Place("/console/documents", "Documents", Permission.READ_RECORDS),
    Place("/console/quarantine", "Quarantine", Permission.READ_RECORDS),
    Place("/console/keys", "API keys", Permission.MANAGE_KEYS),
    Place("/console/networks", "Networks"),
    Place("/console/operations", "Operations"),
    Place("/console/audit", "Audit", Permission.READ_AUDIT),
    Place("/console/disclosures", "Disclosures", Permission.READ_AUDIT),
    Place("/console/members", "Members", Permission.MANAGE_MEMBERS),
)


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page; `visitor` and what belongs to every page is there without being given."""
    visitor = getattr(request.state, "visitor", None)
    common = {
        "visitor": visitor,
        "places": [
            place for place in PLACES if visitor and (place.permission is None or visitor.may(place.permission))
        ],
        "path": request.url.path,
        "here": with_query(
            request.url.path, {name: request.query_params.getlist(name) for name in request.query_params}, note=None
        ),
        "note": words.NOTES.get(request.query_params.get("note", "")),
        "is_first": not request.query_params.get("after"),
        "mark": getattr(request.state, "mark", None),
        "now": request.app.state.clock(),
    }
    return HTMLResponse(_environment().get_template(template).render(**common, **values), status)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("chartwire.api.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "when": when,
        "size": size,
        "milliseconds": milliseconds,
        "microseconds": microseconds,
        "length_of": span,
        "short": short,
    }
    environment.globals |= {
        "version": __version__,
        "static": static_url,
        "words": words,
        "charts": charts,
        "Permission": Permission,
        "Role": Role,
        "EventType": EventType,
        "DeliveryState": DeliveryState,
        "Outcome": Outcome,
        "PayloadVersion": PayloadVersion,
        "with_query": with_query,
    }
    return environment


@cache
def static_url(name: str) -> str:
    """Where a file of `static/` is; the address changes with its content, so it may be kept for ever."""
    return f"/console/static/{name}?v={sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"


def with_query(path: str, given: dict[str, Any], **changes: Any) -> str:
    """The address of a list with some of its parameters changed; None and empty ones are left out."""
    pairs: list[tuple[str, str]] = []
    for name, value in {**given, **changes}.items():
        many = value if isinstance(value, list | tuple) else [value]
        pairs += [(name, str(each)) for each in many if each not in {None, ""}]
    return f"{path}?{urlencode(pairs)}" if pairs else path


def when(moment: datetime | None) -> Markup | str:
    """A moment: in UTC here, in the viewer's own zone once the page's script has seen it, exact under the pointer."""
    if moment is None:
        return "–"
    exact = iso(moment)
    return Markup('<time datetime="{}" title="{} UTC">{} UTC</time>').format(
        exact, exact[:-1].replace("T", " "), f"{moment:%Y-%m-%d %H:%M:%S}"
    )


def size(count: int) -> str:
    """Bytes for people."""
    if count < _KIB:
        return f"{count} B"
    amount = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= _KIB
        if amount < _KIB:
            return f"{amount:.0f} {unit}" if amount >= 10 else f"{amount:.1f} {unit}"
    return f"{amount / _KIB:.1f} TiB"


def milliseconds(count: int) -> str:
    """A short time for people."""
    return f"{count} ms" if count < 1000 else span(timedelta(milliseconds=count))


def microseconds(count: int) -> str:
    """A very short time for people."""
    return f"{count / 1000:.1f} ms" if count < 10_000 else milliseconds(round(count / 1000))


def span(length: timedelta) -> str:
    """A length of time for people, by its largest unit."""
    seconds = length.total_seconds()
    for unit, amount in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= amount:
            return f"{seconds / amount:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def short(identifier: str) -> str:
    """The end of an id: the beginning of those that are ordered by time is the same all day."""
    return identifier[-8:]
