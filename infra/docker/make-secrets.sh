#!/bin/sh
# Makes what docker-compose.yml reads as secrets, where it is missing: random S3 credentials and NATS password in infra/secrets/, which
# git ignores. The folder is closed to other users; the files are not, because a container's user is none of this machine's.
set -eu
cd "$(dirname "$(readlink -f "$0")")/.."
umask 022
mkdir -p -m 0700 secrets
for name in s3-access-key-id s3-secret-access-key nats-password; do
  [ ! -s "secrets/$name" ] || continue
  # It begins with a letter, so that no configuration takes it for a number.
  printf 'v%s' "$(od -An -N20 -tx1 /dev/urandom | tr -d ' \n')" >"secrets/$name"
  echo "made infra/secrets/$name"
done
