#!/bin/bash
# `varve attach` in a machine of its own (test/vm/attach.test.ts): a mounted ext4 lives through a restart of its gateway, a move to
# another one and a resize; then the past, and detach. Varve's code is on the read-only /dev/vdc. Environment: SEED, FILES, FIRST and
# SECOND (ports of the two gateways), EXPORT. The host kills, moves and resizes when it sees this script's lines.
set -euo pipefail
step() { echo "== $(cut -d' ' -f1 /proc/uptime) $*"; }
mkdir -p /code
mount -o ro /dev/vdc /code
export NODE_COMPILE_CACHE=/code/.compile-cache NODE_COMPILE_CACHE_PORTABLE=1
export VARVE_SERVER="$HOST:$FIRST $HOST:$SECOND"
varve() { /code/bin/varve "$@"; }

step refusals
mkdir -p /etc/modprobe.d
echo 'install nbd /bin/false' > /etc/modprobe.d/no-nbd.conf
varve attach "$EXPORT" || echo "fact without-module $?"
rm /etc/modprobe.d/no-nbd.conf

step attach
varve attach "$EXPORT" --dead 90 --connections 2
echo "fact link $(readlink /dev/varve/$EXPORT)"
echo "fact size $(blockdev --getsize64 /dev/nbd0)"
varve attach "$EXPORT" || echo "fact twice $?"
mkfs.ext4 -q "/dev/varve/$EXPORT"
mount "/dev/varve/$EXPORT" /mnt
varve detach "$EXPORT" || echo "fact in-use $?"

step files
python3 files.py write /mnt/files "$FILES" "$SEED" pace
step check
sync
echo 3 > /proc/sys/vm/drop_caches
python3 files.py check /mnt/files
grep -qE '^/dev/nbd0 /mnt ext4 rw' /proc/mounts      # ext4 goes read-only at its first I/O error
varve attachments --local

step resize
for _ in $(seq 300); do
  [[ $(blockdev --getsize64 /dev/nbd0) == 402653184 ]] && break
  sleep 0.1
done
echo "fact grown $(blockdev --getsize64 /dev/nbd0)"
resize2fs /dev/nbd0
dd if=/dev/zero of=/mnt/ballast bs=1M count=300 conv=fsync status=none   # more than the old disk had
rm /mnt/ballast
python3 files.py check /mnt/files
umount /mnt
e2fsck -fn /dev/nbd0

step past
varve attach "$EXPORT@empty"
echo "fact past-read-only $(blockdev --getro /dev/nbd1) $(blockdev --getsize64 /dev/nbd1)"
cmp -n 1048576 /dev/nbd1 /dev/zero && echo 'fact past-empty yes'
varve attachments --local

step detach
varve detach "/dev/varve/$EXPORT@empty"
varve detach "$EXPORT"
[[ ! -e /sys/block/nbd0/pid && ! -e /sys/block/nbd1/pid && ! -e /dev/varve/$EXPORT ]] && echo 'fact gone yes'
/code/bin/varve attach "$EXPORT" --foreground & pid=$!
for _ in $(seq 300); do [[ -e /sys/block/nbd0/pid ]] && break; sleep 0.1; done
sleep 1
kill -TERM $pid
wait $pid
[[ ! -e /sys/block/nbd0/pid ]] && echo 'fact terminated yes'
if dmesg | grep -E 'I/O error|EXT4-fs (error|warning)|Aborting journal'; then exit 1; fi
step done
