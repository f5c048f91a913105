#!/bin/sh
# Brings docker-compose.yml up on a real Docker engine and uses it: one machine first (write, snapshot, restart, read, the bucket), then the
# cluster. Where the images can't be pulled, base-images.sh makes stand-ins. Everything is taken away afterwards. Needs an engine
# (DOCKER_HOST), compose 2.20 or newer as `docker compose` or in COMPOSE, nbdcopy, root for the stand-ins. Not in npm test: few machines have it.
# Last line: `N passed, N failed`.
set -eu
cd "$(dirname "$(readlink -f "$0")")/../.."
export COMPOSE_PROJECT_NAME=varve-try VARVE_NBD_PORT=29809 VARVE_HTTP_PORT=29880 VARVE_GATEWAY_1_PORT=29811 VARVE_GATEWAY_2_PORT=29812 VARVE_API_PORT=29880
compose() { ${COMPOSE:-docker compose} "$@"; }
passed=0
failed=0
claim() { # NAME COMMAND...
  name=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
    echo "ok     $name"
  else
    failed=$((failed + 1))
    echo "FAILED $name"
  fi
}
work=$(mktemp -d)
end() {
  compose --profile '*' down --volumes --timeout 30 >"$work/down.log" 2>&1 || cat "$work/down.log"
  rm -rf "$work"
}
trap end EXIT

infra/docker/make-secrets.sh
for image in $(sed -n 's/^ *FROM \(nats:.*\)/\1/p; s/^ *image: \(chrislusf.*\)/\1/p' docker-compose.yml) \
  $(sed -n 's/^FROM \(node:[^ ]*\).*/\1/p' infra/docker/Dockerfile | head -n 1); do
  docker image inspect "$image" >/dev/null 2>&1 || docker pull -q "$image" || { test/compose/base-images.sh && break; }
done

disk=nbd://127.0.0.1:$VARVE_NBD_PORT/disk0
same_as() { nbdcopy "$2" - | head -c 20000000 | cmp - "$1"; }
in_varve() { compose exec -T varve varve "$@"; }
listens_on_loopback() { compose port varve 10809 | grep -q '^127.0.0.1:'; }
is_nobody_special() { [ "$(compose exec -T varve id -u)" = 10809 ]; }
restarts() { compose restart varve && compose up -d --wait; }
all_is_there() { in_varve bucket check | grep -q 'all is there'; }
shared() { echo "nbd://127.0.0.1:$1/shared"; }
makes_a_volume() { compose exec -T api varve volume create shared --size 64M --api http://127.0.0.1:8080; }

head -c 20000000 /dev/urandom >"$work/then"
head -c 20000000 /dev/urandom >"$work/now"
claim 'the image is built' compose build -q
claim 'one machine is up and healthy' compose up -d --wait
claim 'it listens on loopback' listens_on_loopback
claim 'it does not run as root' is_nobody_special
claim 'a disk takes data' nbdcopy --flush "$work/then" "$disk"
claim 'a snapshot is taken' in_varve snapshot create disk0 then
claim 'and other data' nbdcopy --flush "$work/now" "$disk"
claim 'it restarts' restarts
claim 'the disk is as it was' same_as "$work/now" "$disk"
claim 'its past is as it was' same_as "$work/then" "$disk@then"
claim 'the bucket on SeaweedFS holds what it names' all_is_there
claim 'it stops' compose down --timeout 60
claim 'a cluster is up and healthy' compose --profile cluster up -d --wait
claim 'a volume is made through its api' makes_a_volume
claim 'its first gateway takes data' nbdcopy --flush "$work/then" "$(shared "$VARVE_GATEWAY_1_PORT")"
in_api() { compose exec -T api varve "$@" --api http://127.0.0.1:8080; }
claim 'a snapshot of the cluster is taken' in_api snapshot create shared then
claim 'and other data' nbdcopy --flush "$work/now" "$(shared "$VARVE_GATEWAY_1_PORT")"
claim 'its second gateway opens the snapshot' same_as "$work/then" "$(shared "$VARVE_GATEWAY_2_PORT")@then"
claim 'the first gateway is killed' compose kill gateway-1
sleep 4
claim 'its second gateway serves what was written' same_as "$work/now" "$(shared "$VARVE_GATEWAY_2_PORT")"
[ "$failed" = 0 ] || compose --profile '*' logs --tail 30

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
