#!/bin/bash
# A day in the life of an ext4 on /dev/nbd0, by the kernel's own client (test/vm/kernel-client.test.ts).
# Environment: PORT, EXPORT, SEED, STRESS_SECONDS.
set -euo pipefail
step() { echo "== $(cut -d' ' -f1 /proc/uptime) $*"; }

step attach
modprobe nbd
nbd-client -N "$EXPORT" "$HOST" "$PORT" /dev/nbd0
echo "fact size $(blockdev --getsize64 /dev/nbd0)"
echo "fact fua $(cat /sys/block/nbd0/queue/fua)"
echo "fact discard $(cat /sys/block/nbd0/queue/discard_max_bytes)"
echo "fact write_cache $(cat /sys/block/nbd0/queue/write_cache)"

step mkfs
mkfs.ext4 -q /dev/nbd0
mount /dev/nbd0 /mnt
step files
python3 files.py write /mnt/files 40 "$SEED"

# Written and deleted: after the trim the host's image must not hold this space any more.
step ballast
python3 -c 'import sys; [sys.stdout.buffer.write(b"v" * 1048576) for _ in range(64)]' > /mnt/ballast
sync
rm /mnt/ballast

step stress
mkdir /mnt/stress
# One process of each, all at once: of stress-ng's classes filesystem and io what works on files of a folder. Each
# that would write more than 16 MiB is held to it (sync-file takes 1 GiB if not told): on a full file system others
# end "out of system resources", status 3, which says nothing of the disk.
stressors=()
for name in access chattr chdir chmod dentry dir dirdeep fallocate fiemap filename fpunch getdent hdd \
  inode-flags iomix ioprio link locka lockofd mknod open readahead rename revio seek symlink sync-file touch utime \
  xattr; do stressors+=("--$name" 1); done
stress-ng --temp-path /mnt/stress --timeout "$STRESS_SECONDS" --metrics-brief "${stressors[@]}" \
  --hdd-bytes 16M --iomix-bytes 16M --fallocate-bytes 16M --readahead-bytes 16M --revio-bytes 16M --seek-size 16M \
  --sync-file-bytes 16M 2>&1 | grep -vE 'dispatching|setting to'
rm -rf /mnt/stress

step trim
sync                                                # blocks count as free only when the journal has committed that
fstrim -v /mnt
step unmount
umount /mnt
e2fsck -fn /dev/nbd0
echo 3 > /proc/sys/vm/drop_caches
mount -o ro /dev/nbd0 /mnt
step check
python3 files.py check /mnt/files
umount /mnt
nbd-client -d /dev/nbd0
if dmesg | grep -E 'I/O error|EXT4-fs (error|warning)'; then exit 1; fi
step done
