"""Pages for people: the status, and the OpenAPI document to read. No script, nothing from elsewhere."""

import base64
from hashlib import sha256
from html import escape
from typing import Any

from markdown_it import MarkdownIt

from chartwire import __version__

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--accent:light-dark(#0b6e69,#4fc3bb)}
html{background:light-dark(#fff,#14181c);color:light-dark(#16191d,#e6e9ec)}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0}h2{margin-top:3rem;border-bottom:1px solid var(--line)}
a{color:var(--accent)}nav{display:flex;flex-wrap:wrap;gap:0 1rem}
code,pre{font:14px/1.45 ui-monospace,monospace;overflow-wrap:anywhere}
details{border:1px solid var(--line);border-radius:6px;margin:.5rem 0;padding:.4rem .8rem}
summary{cursor:pointer}summary span{margin-left:.6rem}
b.method{display:inline-block;min-width:4.2rem;margin-right:.4rem;color:var(--accent)}
table{border-collapse:collapse;width:100%;margin:.5rem 0}
td,th{text-align:left;vertical-align:top;padding:.25rem .6rem .25rem 0;border-top:1px solid var(--line);
overflow-wrap:anywhere}
th{overflow-wrap:normal}
.good{color:light-dark(#0a7a3c,#5fd38d)}.bad{color:light-dark(#b3261e,#ff8a80)}
"""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    f"style-src 'sha256-{base64.b64encode(sha256(_STYLE.encode()).digest()).decode()}'"
)

Json = dict[str, Any]

_MARKDOWN = MarkdownIt("commonmark", {"html": False})
"""Descriptions are CommonMark (OpenAPI 3.1, "Rich Text Formatting")."""


def status_page(missing: dict[str, str]) -> str:
    """What a browser gets at the root."""
    if missing:
        rows = "".join(f"<li><b>{escape(part)}</b>: {escape(problem)}</li>" for part, problem in missing.items())
        state = f'<p class="bad">Not ready yet.</p><ul>{rows}</ul>'
    else:
        state = '<p class="good">Running and ready.</p>'
    links = (
        '<nav><a href="/console">Console</a><a href="/docs">API reference</a>'
        '<a href="/openapi.json">OpenAPI document</a>'
        '<a href="/readyz">Readiness</a><a href="/metrics">Metrics</a></nav>'
    )
    return _page("Chartwire", f"<h1>Chartwire</h1><p>Version {escape(__version__)}</p>{state}{links}")


def reference_page(document: Json) -> str:
    """The OpenAPI document, by tag; every part has an anchor."""
    tags: list[Json] = document["tags"]
    parts = [
        f"<h1>{escape(document['info']['title'])} API</h1>",
        _paragraphs(document["info"]["description"]),
        _nav(tags),
    ]
    for tag in tags:
        operations = _operations(document, tag["name"])
        if operations:
            parts.append(f'<h2 id="{escape(tag["name"])}">{escape(tag["name"])}</h2>{_paragraphs(tag["description"])}')
            parts += [_operation(*operation) for operation in operations]
    parts.append('<h2 id="bodies">bodies</h2>')
    parts += [_schema(name, schema) for name, schema in sorted(document["components"]["schemas"].items())]
    return _page("Chartwire API", "".join(parts))


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>'
        f'{escape(title)}</title><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><main>{body}</main></body></html>"
    )


def _nav(tags: list[Json]) -> str:
    links = "".join(f'<a href="#{escape(tag["name"])}">{escape(tag["name"])}</a>' for tag in tags)
    return f'<nav>{links}<a href="#bodies">bodies</a><a href="/openapi.json">OpenAPI document</a></nav>'


def _operations(document: Json, tag: str) -> list[tuple[str, str, Json]]:
    return [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if tag in operation.get("tags", ())
    ]


def _operation(method: str, path: str, operation: Json) -> str:
    body = operation.get("requestBody", {}).get("content", {})
    described = _paragraphs(operation.get("description", ""))
    takes = "".join(f"<p>Body: {_type(media.get('schema', {}))}</p>" for media in body.values())
    return (
        f'<details id="{escape(operation["operationId"])}"><summary><b class="method">{method.upper()}</b>'
        f"<code>{escape(path)}</code><span>{escape(operation.get('summary', ''))}</span></summary>"
        f"{described}{_parameters(operation.get('parameters', []))}{takes}{_answers(operation['responses'])}</details>"
    )


def _parameters(parameters: list[Json]) -> str:
    if not parameters:
        return ""
    rows = "".join(
        f"<tr><td><code>{escape(item['name'])}</code></td><td>{escape(item['in'])}"
        f"{', required' if item.get('required') else ''}</td><td>{_type(item.get('schema', {}))}</td>"
        f"<td>{_words(item.get('description', ''))}</td></tr>"
        for item in parameters
    )
    return f"<table><tr><th>Parameter</th><th>In</th><th>Type</th><th>Meaning</th></tr>{rows}</table>"


def _answers(responses: Json) -> str:
    rows = "".join(
        f"<tr><td>{escape(status)}</td><td>{_words(response.get('description', ''))}</td>"
        f"<td>{_contents(response.get('content', {}))}</td></tr>"
        for status, response in responses.items()
    )
    return f"<table><tr><th>Answer</th><th>Meaning</th><th>Body</th></tr>{rows}</table>"


def _contents(content: Json) -> str:
    return "<br>".join(
        f"<code>{escape(media_type)}</code> {_type(media.get('schema', {}))}" for media_type, media in content.items()
    )


def _schema(name: str, schema: Json) -> str:
    required = schema.get("required", [])
    rows = "".join(
        f"<tr><td><code>{escape(key)}</code>{' (required)' if key in required else ''}</td>"
        f"<td>{_type(value)}</td><td>{_words(value.get('description', ''))}</td></tr>"
        for key, value in schema.get("properties", {}).items()
    )
    table = (
        f"<table><tr><th>Field</th><th>Type</th><th>Meaning</th></tr>{rows}</table>"
        if rows
        else f"<p>{_type(schema)}</p>"
    )
    described = _paragraphs(schema.get("description", ""))
    return (
        f'<details id="body-{escape(name)}"><summary><code>{escape(name)}</code></summary>{described}{table}</details>'
    )


def _type(schema: Json) -> str:
    """A schema in a few words, with links to the bodies it names."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#body-{name}">{name}</a>'
    if alternatives := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_type(alternative) for alternative in alternatives)
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    return escape(str(schema.get("type", "anything")))


def _paragraphs(text: str) -> str:
    return str(_MARKDOWN.render(text))


def _words(text: str) -> str:
    """Of a cell: no paragraph around it."""
    return str(_MARKDOWN.renderInline(text))
