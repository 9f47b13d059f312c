#!/bin/sh
# Whether a message is genuine, by openssl alone: its body on standard input, its headers and your key in the environment.
#
#     WEBHOOK_KEY=... WEBHOOK_ID=... WEBHOOK_TIMESTAMP=... WEBHOOK_SIGNATURE='v1,...' sh verify.sh < body.json
set -eu

age=$(($(date +%s) - WEBHOOK_TIMESTAMP))
if [ "${age#-}" -gt 300 ]; then
  echo "not of these five minutes" >&2
  exit 1
fi
expected="v1,$( (printf '%s.%s.' "$WEBHOOK_ID" "$WEBHOOK_TIMESTAMP" && cat) |
  openssl dgst -sha256 -hmac "$WEBHOOK_KEY" -binary | openssl base64 -A)"
for each in $WEBHOOK_SIGNATURE; do # several, while keys overlap
  if [ "$each" = "$expected" ]; then
    echo genuine
    exit 0
  fi
done
echo "the signature does not fit" >&2
exit 1
