#!/bin/bash
# qemu's NBD client as a virtio disk: unlike the kernel's own client it sends WRITE_ZEROES
# (test/vm/kernel-client.test.ts). Environment: BLOCKDEV, SEED.
set -euo pipefail
step() { echo "== $(cut -d' ' -f1 /proc/uptime) $*"; }
queue=/sys/block/${BLOCKDEV#/dev/}/queue
echo "fact discard $(cat "$queue/discard_max_bytes")"
echo "fact write_zeroes $(cat "$queue/write_zeroes_max_bytes")"

# expect OFFSET_MIB LENGTH_MIB BYTE: the range holds only this byte, read from the device and not from the cache
expect() {
  python3 - "$BLOCKDEV" "$@" <<'PY'
import mmap, os, sys
dev, offset, length, byte = sys.argv[1], int(sys.argv[2]) << 20, int(sys.argv[3]) << 20, int(sys.argv[4])
fd, buf = os.open(dev, os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, 1 << 20)
for at in range(offset, offset + length, 1 << 20):
    os.preadv(fd, [buf], at)
    if buf[:] != bytes([byte]) * (1 << 20): sys.exit('expected only %d in the MiB at %d' % (byte, at))
print('expected: %d MiB at %d hold %d' % (length >> 20, offset, byte), flush=True)
PY
}
fill() { # OFFSET_MIB LENGTH_MIB
  python3 -c 'import sys; [sys.stdout.buffer.write(b"U" * 1048576) for _ in range(int(sys.argv[1]))]' "$2" |
    dd of="$BLOCKDEV" bs=1M seek="$1" oflag=direct iflag=fullblock status=none
}

step zeroes
fill 0 24
blkdiscard -z -o 4M -l 8M "$BLOCKDEV"               # BLKZEROOUT: WRITE_ZEROES that may not deallocate
expect 0 4 85; expect 4 8 0; expect 12 12 85
blkdiscard -o 12M -l 8M "$BLOCKDEV"
expect 12 8 0; expect 20 4 85
fill 6 2                                             # data on top of zeroes is data again
expect 4 2 0; expect 6 2 85; expect 8 4 0

step mkfs
blkdiscard -f "$BLOCKDEV"
mkfs.ext4 -q -E discard "$BLOCKDEV"
mount -o discard "$BLOCKDEV" /mnt
python3 files.py write /mnt/files 20 "$SEED"
fallocate -l 16M /mnt/space && fallocate -z -o 1M -l 8M /mnt/space && rm /mnt/space
sync
fstrim -v /mnt
umount /mnt
e2fsck -fn "$BLOCKDEV"
echo 3 > /proc/sys/vm/drop_caches
mount -o ro "$BLOCKDEV" /mnt
python3 files.py check /mnt/files
umount /mnt
if dmesg | grep -E 'I/O error|EXT4-fs (error|warning)'; then exit 1; fi
step done
