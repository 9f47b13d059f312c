#!/bin/sh
# Runs chartwire. Credentials of a bucket are read from the environment, where others may see them (`docker inspect`):
# here they come from files, as secrets do. AWS_SECRET_ACCESS_KEY_FILE=/run/secrets/… sets AWS_SECRET_ACCESS_KEY.
set -eu
if [ -n "${AWS_ACCESS_KEY_ID_FILE:-}" ]; then
  AWS_ACCESS_KEY_ID="$(cat "$AWS_ACCESS_KEY_ID_FILE")"
  export AWS_ACCESS_KEY_ID
fi
if [ -n "${AWS_SECRET_ACCESS_KEY_FILE:-}" ]; then
  AWS_SECRET_ACCESS_KEY="$(cat "$AWS_SECRET_ACCESS_KEY_FILE")"
  export AWS_SECRET_ACCESS_KEY
fi
exec chartwire "$@"
