"""A receiver of Chartwire's webhooks in Python: verify, answer pings, keep each message once, answer at once.

pip install fastapi uvicorn standardwebhooks
WEBHOOK_KEY=... uvicorn fastapi_receiver:app --port 3000
"""

import json
import os
import sqlite3

from fastapi import FastAPI, Request, Response
from standardwebhooks import Webhook, WebhookVerificationError

app = FastAPI()
webhook = Webhook(os.environ["WEBHOOK_KEY"].encode())  # the webhookKey as it is, or Webhook("whsec_...")
messages = sqlite3.connect(os.environ.get("MESSAGES", "messages.db"), isolation_level=None, check_same_thread=False)
messages.execute("CREATE TABLE IF NOT EXISTS message (id TEXT PRIMARY KEY, body BLOB NOT NULL)")


@app.post("/webhook")
async def receive(request: Request) -> object:
    body = await request.body()  # the bytes that were signed: parse them only after they are verified
    try:
        webhook.verify(body, dict(request.headers))  # the signature, and that the timestamp is of these five minutes
    except WebhookVerificationError:
        return Response(status_code=401)
    message = json.loads(body)
    if "ping" in message:
        return {"pong": message["ping"]}
    # Kept before it is answered, and once: it may come again under the same id. What takes time (fetching each
    # document's `location`) is done by something else, which reads this table.
    messages.execute("INSERT OR IGNORE INTO message VALUES (?, ?)", (request.headers["webhook-id"], body))
    return Response(status_code=200)
