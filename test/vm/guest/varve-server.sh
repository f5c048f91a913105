#!/bin/bash
# Varve in a machine of its own (test/vm/power-cut.ts): its data lies on an ext4 on /dev/vdc, the disk that loses what
# was not flushed; its code on the read-only /dev/vdd. Environment: VOLUMES (arguments of `varve up`).
# The script never ends by itself: the host cuts the power.
set -euo pipefail
mkdir -p /data /code
mount -o ro /dev/vdd /code
echo "== $(cut -d' ' -f1 /proc/uptime) replaying"
mount /dev/vdc /data                                # the kernel replays the journal …
umount /data
e2fsck -fn /dev/vdc                                 # … and what it left must be whole
mount /dev/vdc /data
echo "== $(cut -d' ' -f1 /proc/uptime) starting"
export NODE_COMPILE_CACHE=/code/.compile-cache NODE_COMPILE_CACHE_PORTABLE=1
# shellcheck disable=SC2086
exec /code/bin/varve up --data /data/varve --nbd 0.0.0.0:10809 --http off $VOLUMES
