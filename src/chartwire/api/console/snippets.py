"""What a developer copies: a request as curl, and how its signature is checked, in three languages."""

import json
import shlex
from dataclasses import dataclass

from chartwire.model.webhook import Endpoint, SignatureScheme
from chartwire.services.inspection import InspectedAttempt


@dataclass(frozen=True, slots=True)
class Snippet:
    """Some code, and how it is started."""

    language: str
    start: str
    code: str


def readable(body: bytes) -> str:
    """JSON with line breaks."""
    return json.dumps(json.loads(body), indent=2, ensure_ascii=False)


def readable_answer(answer: bytes) -> str:
    """What a receiver answered, as text whatever it is."""
    return answer.decode("utf-8", "replace")


def curl(inspected: InspectedAttempt, body: bytes | None) -> str:
    """The request once more, for a shell. Without its body it reads that from a file."""
    lines = [f"curl -i {shlex.quote(inspected.attempt.url)}"]
    lines += [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in inspected.headers if name != "content-length"]
    lines.append("--data-binary @payload.json" if body is None else f"--data-binary {shlex.quote(body.decode())}")
    return " \\\n  ".join(lines)


def verification(endpoint: Endpoint, inspected: InspectedAttempt) -> list[Snippet]:
    """How this very signature is checked: the body in `payload.json`, the webhook key in `WEBHOOK_KEY`."""
    headers = dict(inspected.headers)
    if "webhook-signature" not in headers:
        return []
    if endpoint.signature_scheme is SignatureScheme.V1A:
        values = {"expected": headers["x-metriport-signature"]}
        templates = (_PYTHON_HEX, _JAVASCRIPT_HEX, _SHELL_HEX)
    else:
        values = {
            "id": headers["webhook-id"],
            "timestamp": headers["webhook-timestamp"],
            "expected": headers["webhook-signature"],
        }
        templates = (_PYTHON, _JAVASCRIPT, _SHELL)
    starts = (("Python", "python3 verify.py"), ("JavaScript", "node verify.mjs"), ("Shell", "sh verify.sh"))
    return [
        Snippet(language, f"WEBHOOK_KEY=… {start}", _filled(template, values))
        for (language, start), template in zip(starts, templates, strict=True)
    ]


def _filled(template: str, values: dict[str, str]) -> str:
    """Values are ids, numbers, Base64 and hex: none of them can end a string."""
    for name, value in values.items():
        template = template.replace(f"<{name}>", value)
    return template.strip("\n")


_PYTHON = """
import base64, hmac, os

body = open("payload.json", "rb").read()
signed = b"<id>.<timestamp>." + body
proof = hmac.digest(os.environ["WEBHOOK_KEY"].encode(), signed, "sha256")
ours = "v1," + base64.b64encode(proof).decode()
print("good" if any(hmac.compare_digest(ours, each) for each in "<expected>".split()) else "WRONG")
"""

_JAVASCRIPT = """
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";

const body = readFileSync("payload.json");
const hmac = createHmac("sha256", process.env.WEBHOOK_KEY);
const ours = "v1," + hmac.update("<id>.<timestamp>.").update(body).digest("base64");
console.log("<expected>".split(" ").includes(ours) ? "good" : "WRONG");
"""

_SHELL = """
proof=$( (printf %s '<id>.<timestamp>.'; cat payload.json) |
  openssl dgst -sha256 -hmac "$WEBHOOK_KEY" -binary | base64)
case ' <expected> ' in *" v1,$proof "*) echo good ;; *) echo WRONG ;; esac
"""

_PYTHON_HEX = """
import hmac, os

body = open("payload.json", "rb").read()
ours = hmac.digest(os.environ["WEBHOOK_KEY"].encode(), body, "sha256").hex()
print("good" if hmac.compare_digest(ours, "<expected>") else "WRONG")  # x-metriport-signature
"""

_JAVASCRIPT_HEX = """
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";

const ours = createHmac("sha256", process.env.WEBHOOK_KEY).update(readFileSync("payload.json")).digest("hex");
console.log(ours === "<expected>" ? "good" : "WRONG"); // x-metriport-signature
"""

_SHELL_HEX = """
proof=$(openssl dgst -sha256 -hmac "$WEBHOOK_KEY" -r < payload.json | cut -d' ' -f1)
[ "$proof" = '<expected>' ] && echo good || echo WRONG # x-metriport-signature
"""
