#!/usr/bin/env bash
# A shared address for two gateways by the real keepalived: the gateway that has it is killed under a client with reconnect-delay, which must
# see no error and find every byte (docs/recipes/shared-address.md). Root, with keepalived, curl and qemu-utils installed; a network
# of its own, gone at the end.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ -z "${VARVE_TEST_OWN_NETWORK:-}" ]; then
  export VARVE_TEST_OWN_NETWORK=1
  exec unshare --net --mount sh -c 'mount -t tmpfs tmpfs /run && ip link set lo up && exec "$0"' "$PWD/test/cluster/shared-address.sh"
fi
lab=$(mktemp -d)
shared=10.83.0.100
export VARVE_API=http://10.83.0.41:8080 VARVE_LAB_LISTEN=0.0.0.0
finish() {
  for n in 1 2; do kill "$(cat "$lab/keepalived-$n.pid")" 2>/dev/null || true; done
  scripts/cluster.sh down "$lab/data" >/dev/null 2>&1 || true
  rm -rf "$lab"
}
trap finish EXIT
mkdir "$lab/data"
scripts/cluster.sh up "$lab/data" >"$lab/up.log" 2>&1 || { cat "$lab/up.log"; exit 1; }
bin/varve volume create disk0 --size 64M --replicas 2
for n in 1 2; do
  # The settings of the page, with this lab's addresses; gate-2 is preferred.
  sed -n '/^global_defs/,/^```/p' docs/recipes/shared-address.md | sed '/^```/d' |
    sed "s#127.0.0.1:8081#10.83.0.3$n:8081#; s#192.0.2.100#$shared#; s#priority 101#priority 10$n#" >"$lab/keepalived-$n.conf"
  ip netns exec "varve-gate-$n" keepalived -n -l -f "$lab/keepalived-$n.conf" -p "$lab/keepalived-$n.pid" \
    -r "$lab/vrrp-$n.pid" >"$lab/keepalived-$n.log" 2>&1 &
done
has() { ip netns exec "varve-$1" ip -brief address show eth0 | grep -q "$shared/"; }
for _ in $(seq 60); do has gate-2 && break; sleep 0.5; done
has gate-2
pieces=$(seq 0 99)
{
  for i in $pieces; do printf 'write -P %d %d 65536\nsleep 200\n' $((i + 1)) $((i * 65536)); done
  for i in $pieces; do printf 'read -P %d %d 65536\n' $((i + 1)) $((i * 65536)); done
} | qemu-io --image-opts \
  "driver=nbd,server.type=inet,server.host=$shared,server.port=10809,export=disk0,reconnect-delay=60" 2>&1 |
  while read -r line; do echo "$(date +%s.%N) $line"; done >"$lab/client.log" &
client=$!
sleep 6
scripts/cluster.sh kill gate-2 "$lab/data"
wait "$client"
wrote=$(grep -c "wrote 65536" "$lab/client.log")
read=$(grep -c "read 65536" "$lab/client.log")
bad=$(grep -ci "fail\|error\|mismatch" "$lab/client.log" || true)
gap=$(awk '/wrote/ { if (last && $1 - last > most) most = $1 - last; last = $1 } END { print most }' "$lab/client.log")
echo "$wrote writes and $read reads of 100, $bad errors; longest time between two answers: $gap s"
has gate-1
bin/varve attachments
[ "$wrote" = 100 ] && [ "$read" = 100 ] && [ "$bad" = 0 ]
