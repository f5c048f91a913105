#!/bin/bash
# Two connections of one kernel client, on two CPUs (test/vm/kernel-client.test.ts): requests of one disk come over
# both, and a FLUSH on one must cover what was written over the other. Environment: PORT, EXPORT.
set -euo pipefail
step() { echo "== $(cut -d' ' -f1 /proc/uptime) $*"; }
modprobe nbd
nbd-client -C 2 -N "$EXPORT" "$HOST" "$PORT" /dev/nbd0
echo "fact queues $(ls /sys/block/nbd0/mq | wc -l)"

step fio
# Each job is bound to a CPU and so to a connection; verify reads everything back through the device.
fio --name=left --filename=/dev/nbd0 --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=16 --fsync=32 \
    --offset=0 --size=8M --cpus_allowed=0 --verify=crc32c --verify_fatal=1 --do_verify=0 --minimal \
    --name=right --filename=/dev/nbd0 --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=16 --fsync=32 \
    --offset=8M --size=8M --cpus_allowed=1 --verify=crc32c --verify_fatal=1 --do_verify=0 > /dev/null
for cpus in '0 1' '1 0'; do                         # what one connection wrote, the other one reads
  set -- $cpus
  fio --name=left --filename=/dev/nbd0 --rw=randread --bs=4k --direct=1 --ioengine=libaio --iodepth=16 \
      --offset=0 --size=8M --cpus_allowed="$1" --verify=crc32c --verify_fatal=1 --minimal \
      --name=right --filename=/dev/nbd0 --rw=randread --bs=4k --direct=1 --ioengine=libaio --iodepth=16 \
      --offset=8M --size=8M --cpus_allowed="$2" --verify=crc32c --verify_fatal=1 > /dev/null
  echo "verified with CPUs $cpus"
done

step xfs                                            # a second file system, whose log is written with FUA and FLUSH
mkfs.xfs -q -f /dev/nbd0
mount /dev/nbd0 /mnt
taskset -c 0 python3 files.py write /mnt/left 15 1 & left=$!
taskset -c 1 python3 files.py write /mnt/right 15 2 & right=$!
wait "$left"; wait "$right"
umount /mnt
xfs_repair -n /dev/nbd0 2>/dev/null
mount -o ro /dev/nbd0 /mnt
taskset -c 1 python3 files.py check /mnt/left
taskset -c 0 python3 files.py check /mnt/right
umount /mnt
nbd-client -d /dev/nbd0
if dmesg | grep -E 'I/O error|XFS .*(error|corrupt)'; then exit 1; fi
step done
