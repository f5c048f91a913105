#!/bin/bash
# A cluster of Varve on one machine without Docker: three NATS servers, three storage nodes, two gateways, an archiver and the api, each in a network
# namespace of its own with an address of its own, as on machines of their own. `scripts/cluster.sh up DIR` starts what does not run, down ends
# it and removes the network, DIR stays; status says what runs; stop NAME and start NAME are for one part, kill NAME for kill -9; cut A B keeps
# A's packets from B and heal lets all through again; net makes the network alone. Needs root (or unshare --net --mount --user --map-root-user),
# iproute2, iptables and nats-server 2.15 (scripts/test-server-binary.ts builds it). README "Several machines"; test/cluster has the same layout.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
declare -A host=(
  [nats-1]=10.83.0.11 [nats-2]=10.83.0.12 [nats-3]=10.83.0.13
  [shelf-1]=10.83.0.21 [shelf-2]=10.83.0.22 [shelf-3]=10.83.0.23
  [gate-1]=10.83.0.31 [gate-2]=10.83.0.32 [front]=10.83.0.41
  [keep-1]=10.83.0.51 [keep-2]=10.83.0.52 [bucket]=10.83.0.61
  [client]=10.83.0.1
)
order="nats-1 nats-2 nats-3 front shelf-1 shelf-2 shelf-3 gate-1 gate-2 keep-1"
# With a network of their own, too: a second archiver and a bucket, which tests start there.
places="$order keep-2 bucket"
lab=(--nats-replicas 3)
for name in nats-1 nats-2 nats-3; do
  lab+=(--nats "${host[$name]}:4222" --nats-monitor "http://${host[$name]}:8222")
done

fail() { echo "cluster: $1" >&2; exit 1; }
known() { [ -n "${host[$1]:-}" ] || fail "there is no part $1; there are: $order"; }
inside() { local name=$1; shift; ip netns exec "varve-$name" "$@"; }

net_up() {
  ip link show varve0 >/dev/null 2>&1 || ip link add varve0 type bridge
  ip addr replace "${host[client]}/24" dev varve0
  ip link set varve0 up
  # Where bridged packets pass through the machine's own rules, Docker's let nothing through.
  iptables -w -C FORWARD -i varve0 -o varve0 -j ACCEPT 2>/dev/null ||
    iptables -w -I FORWARD -i varve0 -o varve0 -j ACCEPT
  local name
  for name in $places; do
    ip netns pids "varve-$name" >/dev/null 2>&1 && continue
    ip netns add "varve-$name"
    ip link add "vv-$name" type veth peer name eth0 netns "varve-$name"
    ip link set "vv-$name" master varve0 up
    ip -n "varve-$name" addr add "${host[$name]}/24" dev eth0
    ip -n "varve-$name" link set eth0 up
    ip -n "varve-$name" link set lo up
  done
}

net_down() {
  local name
  for name in $places; do ip netns del "varve-$name" 2>/dev/null || true; done
  ip link del varve0 2>/dev/null || true
  iptables -w -D FORWARD -i varve0 -o varve0 -j ACCEPT 2>/dev/null || true
}

nats_conf() { # NAME
  cat <<EOF
server_name: $1
listen: ${host[$1]}:4222
http: ${host[$1]}:8222
max_payload: 1MB
jetstream { store_dir: "$data/$1", sync_interval: always }
cluster {
  name: varve
  listen: "${host[$1]}:6222"
  routes: [nats://10.83.0.11:6222, nats://10.83.0.12:6222, nats://10.83.0.13:6222]
}
EOF
}

pid_of() { cat "$data/run/$1.pid" 2>/dev/null || true; }
runs() { local pid; pid=$(pid_of "$1"); [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; }

start_one() { # NAME
  local name=$1 command at=${host[$1]}
  runs "$name" && return
  local nats=(--name "$name" "${lab[@]}")
  # The bucket is a directory here, which every part can reach.
  local past=(--bucket "file://$data/bucket")
  case $name in
    nats-*)
      nats_conf "$name" >"$data/run/$name.conf"
      command=("$nats_server" -c "$data/run/$name.conf")
      ;;
    shelf-*) command=("$here/bin/varve" storage "${nats[@]}" --pool "main:$data/$name" --health "$at:8082" "${past[@]}") ;;
    gate-*) command=("$here/bin/varve" gateway "${nats[@]}" --nbd "${VARVE_LAB_LISTEN:-$at}:10809" --advertise "$at:10809" \
      --health "$at:8081" "${past[@]}") ;;
    front) command=("$here/bin/varve" api "${nats[@]}" --http "$at:8080" --health "$at:8083" "${past[@]}") ;;
    keep-*) command=("$here/bin/varve" archiver "${nats[@]}" --health "$at:8084" "${past[@]}") ;;
  esac
  (exec ip netns exec "varve-$name" setsid "${command[@]}") </dev/null >>"$data/run/$name.log" 2>&1 &
  echo $! >"$data/run/$name.pid"
}

health_of() { # NAME
  case $1 in
    nats-*) echo "http://${host[$1]}:8222/healthz" ;;
    shelf-*) echo "http://${host[$1]}:8082/readyz" ;;
    gate-*) echo "http://${host[$1]}:8081/readyz" ;;
    front) echo "http://${host[$1]}:8083/readyz" ;;
    keep-*) echo "http://${host[$1]}:8084/readyz" ;;
  esac
}

ready() { # NAME
  "$node" -e 'fetch(process.argv[1], { signal: AbortSignal.timeout(2000) }).then((a) => process.exit(a.ok ? 0 : 1), () => process.exit(1))' \
    "$(health_of "$1")"
}

await() { # NAME: ready within 60 s
  local attempt
  for attempt in $(seq 300); do
    ready "$1" && return
    runs "$1" || { tail -n 20 "$data/run/$1.log" >&2; fail "$1 ended"; }
    sleep 0.2
  done
  tail -n 20 "$data/run/$1.log" >&2
  fail "$1 is not ready after a minute"
}

end_one() { # NAME SIGNAL
  local pid attempt
  pid=$(pid_of "$1")
  rm -f "$data/run/$1.pid"
  [ -n "$pid" ] && kill "-$2" "$pid" 2>/dev/null || return 0
  for attempt in $(seq 300); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
}

prepare() { # for whatever starts something
  [ "$(id -u)" = 0 ] || fail "network namespaces need root: sudo scripts/cluster.sh"
  node=$here/node_modules/node/bin/node
  [ -x "$node" ] || fail "run 'npm ci' first"
  nats_server=$("$node" -e 'import(process.argv[1]).then((m) => m.serverBinary("nats-server")).then((p) => console.log(`\n${p}`))' \
    "$here/scripts/test-server-binary.ts" | tail -n 1)
  mkdir -p "$data/run" "$data/bucket"
}

command=${1:-help}
case $command in
  net) net_up; exit ;;
  cut)
    known "${2:?A}" && known "${3:?B}"
    if [ "$3" = client ]; then fail "cut the other way round: packets are dropped where a part takes them in"; fi
    inside "$3" iptables -w -I INPUT -s "${host[$2]}" -j DROP
    exit
    ;;
  heal)
    for name in $places; do inside "$name" iptables -w -F INPUT; done
    exit
    ;;
  up | down | status | start | stop | kill) ;;
  *) sed -n '2,7s/^# //p' "$0"; exit 64 ;;
esac

case $command in up | down | status) data=${2:-} ;; *) data=${3:-} ;; esac
[ -n "$data" ] || data=$here/varve-data/cluster
mkdir -p "$data"
data=$(cd "$data" && pwd)

case $command in
  up)
    prepare
    net_up
    for name in nats-1 nats-2 nats-3; do start_one "$name"; done
    for name in nats-1 nats-2 nats-3; do await "$name"; done
    for name in front shelf-1 shelf-2 shelf-3 gate-1 gate-2 keep-1; do start_one "$name"; done
    for name in front shelf-1 shelf-2 shelf-3 gate-1 gate-2 keep-1; do await "$name"; done
    echo "the cluster is ready; its logs are in $data/run"
    echo "export VARVE_API=http://${host[front]}:8080"
    echo "gateways: ${host[gate-1]}:10809 and ${host[gate-2]}:10809"
    ;;
  down)
    for name in gate-1 gate-2 front keep-1 shelf-1 shelf-2 shelf-3; do end_one "$name" TERM & done
    wait
    for name in nats-1 nats-2 nats-3; do end_one "$name" TERM & done
    wait
    net_down
    ;;
  status)
    for name in $order; do
      if runs "$name"; then state="runs, process $(pid_of "$name")"; else state="does not run"; fi
      printf '%-8s %-12s %s\n' "$name" "${host[$name]}" "$state"
    done
    ;;
  start) known "$2"; prepare; start_one "$2"; await "$2" ;;
  stop) known "$2"; end_one "$2" TERM ;;
  kill) known "$2"; end_one "$2" KILL ;;
esac
