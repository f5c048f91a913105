#!/bin/sh
# The tour of the past, as the README tells it: a disk with a file system, a snapshot, a deleted file that comes back from the
# time before, rollback, a clone, cold extents in the bucket, a lost machine. Every step checks what it shows; the first that is
# wrong ends the tour. `scripts/tour.sh [DIRECTORY]` works in a new directory and takes a minute; test/e2e/tour.test.ts runs it.
# Needs libnbd-bin and e2fsprogs. No root, no mount: mke2fs fills the file system, debugfs reads and changes it.
set -eu
PATH="$PATH:/usr/sbin:/sbin"

here=$(cd "$(dirname "$0")/.." && pwd)
varve="$here/bin/varve"
work=${1:-$(mktemp -d "${TMPDIR:-/tmp}/varve-tour-XXXXXX")}
mkdir -p "$work"
cd "$work"
port=${VARVE_TOUR_PORT:-18080}
export VARVE_API="http://127.0.0.1:$port"
server=

step() { printf '\n== %s\n' "$1"; }
say() { printf '   $ %s\n' "$*"; "$@"; }
uri() { printf 'nbd+unix:///%s?socket=%s/nbd.sock' "$1" "$work"; }
fail() { echo "tour: $1" >&2; exit 1; }

start() { # DATA
  "$varve" up --data "$1" --bucket "file://$work/bucket" --nbd "unix:$work/nbd.sock" --http "127.0.0.1:$port" \
    --volume disk0:64M >>server.log 2>&1 &
  server=$!
  for _ in $(seq 600); do
    grep -q '^varve is ready$' server.log && return
    kill -0 "$server" 2>/dev/null || { cat server.log >&2; fail "the server did not start"; }
    sleep 0.1
  done
  fail "the server was not ready within a minute"
}
stop() { # SIGNAL
  kill "-$1" "$server" && wait "$server" 2>/dev/null || true
  server=
  mv server.log "server-$(date +%s%N).log"
}
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true' EXIT
trap 'exit 1' INT TERM

# What a client with the disk mounted would do; a copy stands in for the mount.
change() { # DEBUGFS COMMAND
  nbdcopy "$(uri disk0)" changed.img
  debugfs -w -R "$1" changed.img 2>/dev/null
  nbdcopy changed.img "$(uri disk0)"
}
letter() { # EXPORT: the file as that disk has it
  nbdcopy "$(uri "$1")" seen.img
  rm -f seen.txt
  debugfs -R "dump /letter.txt seen.txt" seen.img >/dev/null 2>&1
  [ -s seen.txt ]
}

step "a disk with a file system on it"
mkdir -p files
echo "Dear future, this is what I wrote." >files/letter.txt
head -c 8388608 /dev/urandom >files/photos.bin
mke2fs -q -t ext4 -d files fs.img 64M
start "$work/data"
say nbdcopy fs.img "$(uri disk0)"

step "a snapshot, then the time before a mistake"
say "$varve" snapshot create disk0 good
sleep 1
before=$(date -u +%Y-%m-%dT%H:%M:%SZ)
sleep 1

step "the mistake: the letter is deleted"
change "rm /letter.txt"
letter disk0 && fail "the letter is still there"
echo "   disk0 has no letter any more"

step "the disk as it was at $before gives it back"
letter "disk0@$before" || fail "the letter is not in disk0@$before"
cmp seen.txt files/letter.txt
printf '   disk0@%s: %s\n' "$before" "$(cat seen.txt)"
say "$varve" history disk0 --intervals 6
say "$varve" changes disk0 --from good --to "$before"

step "a clone: a disk of its own, writable at once"
say "$varve" volume create copy --from "disk0@$before"
letter copy || fail "the clone has no letter"
cmp seen.txt files/letter.txt

step "rollback, and forward again"
now=$("$varve" volume show disk0 --json | sed -n 's/.*"durableLsn": \([0-9]*\).*/\1/p')
say "$varve" volume rollback disk0 --to good
letter disk0 || fail "the rollback did not bring the letter back"
say "$varve" volume rollback disk0 --to "lsn:$now"
letter disk0 && fail "rolling forward did not bring the mistake back"
say "$varve" volume rollback disk0 --to good

step "cold extents leave this machine, and are read again"
say "$varve" volume set disk0 --residency tiered --cold-after 1h
say "$varve" volume tier disk0 --cold-after 0s
"$varve" volume show disk0 | grep -E '^(image|extents) '
"$varve" volume show disk0 | grep -q 'in the bucket' || fail "nothing went to the bucket"
letter disk0 || fail "the letter did not come back from the bucket"
cmp seen.txt files/letter.txt

step "the machine is lost; the bucket is not"
nbdcopy "$(uri disk0)" last.img
say "$varve" snapshot create disk0 last
sleep 1
stop TERM
rm -rf "$work/data"
say "$varve" rescue --bucket "file://$work/bucket" --data "$work/new-machine"
start "$work/new-machine"
say "$varve" volume list
nbdcopy "$(uri disk0)" rescued.img
cmp last.img rescued.img
letter "disk0@good" || fail "the snapshot did not survive"
cmp seen.txt files/letter.txt
stop TERM

step "that was the tour: every disk held what it should ($work)"
