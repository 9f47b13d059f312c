#!/bin/sh
# Posts a body, signed as Chartwire signs, to your receiver, and prints how it is answered: by curl and openssl alone.
#
#     WEBHOOK_KEY=... sh post-signed.sh http://127.0.0.1:3000/webhook body.json
#
# WEBHOOK_ID and WEBHOOK_TIMESTAMP may be given, to try a message that comes twice, or late.
set -eu

url=$1 body=$2
id=${WEBHOOK_ID:-$(openssl rand -hex 16)}
timestamp=${WEBHOOK_TIMESTAMP:-$(date +%s)}
signature=$( (printf '%s.%s.' "$id" "$timestamp" && cat "$body") |
  openssl dgst -sha256 -hmac "$WEBHOOK_KEY" -binary | openssl base64 -A)
curl --silent --show-error --write-out '\n%{http_code}\n' --data-binary "@$body" \
  --header 'content-type: application/json' --header "webhook-id: $id" --header "webhook-timestamp: $timestamp" \
  --header "webhook-signature: v1,$signature" \
  --header "x-metriport-signature: $(openssl dgst -sha256 -hmac "$WEBHOOK_KEY" -r <"$body" | cut -c 1-64)" "$url"
