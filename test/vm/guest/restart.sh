#!/bin/bash
# A mounted ext4 lives through kill -9 and restart of its server (test/vm/server-restart.test.ts).
# Environment: SEED, FILES; either PORT and EXPORT (kernel's client, attached by nbd-persist.py) or BLOCKDEV,
# which qemu's own client attached with a reconnect delay. The host kills the server while files are written.
set -euo pipefail
step() { echo "== $(cut -d' ' -f1 /proc/uptime) $*"; }

if [[ ${BLOCKDEV:-} ]]; then
  dev=$BLOCKDEV
else
  dev=/dev/nbd0
  modprobe nbd
  # One request may take 5 s before its link counts as dead; all wait 60 s for the server to come back.
  python3 nbd-persist.py "$HOST" "$PORT" "$EXPORT" 0 60 5
fi
mkfs.ext4 -q "$dev"
mount "$dev" /mnt
step files
python3 files.py write /mnt/files "$FILES" "$SEED" pace
step check
sync
echo 3 > /proc/sys/vm/drop_caches
python3 files.py check /mnt/files
grep -qE "^$dev /mnt ext4 rw" /proc/mounts          # ext4 goes read-only at its first I/O error
umount /mnt
e2fsck -fn "$dev"
if dmesg | grep -E 'I/O error|EXT4-fs (error|warning)|Aborting journal'; then exit 1; fi
[[ ${BLOCKDEV:-} ]] || nbd-client -d "$dev"
step done
