#!/bin/bash
# make-boot-disk.sh OUT.raw VM_CLIENT_CACHE - makes a small Linux disk with a real boot chain: MBR, GRUB, kernel and
# initrd on an ext4 partition, busybox as the userland. The BIOS of any machine boots it from the disk alone.
# Kernel, initrd and busybox come from vm-client's cache; GRUB from the packages grub-common and grub-pc-bin. Needs
# neither root nor loop devices. Called by test/boot/boot.test.ts.
set -euo pipefail
out=$1 cache=$2
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{bin,sbin,etc,proc,sys,dev,run,tmp,root,boot/grub}

# The system: busybox as init, a getty on the serial line, root without a password.
cp "$cache/busybox" "$root/bin/busybox"
for applet in sh mount umount login getty poweroff reboot ls cat sync sha256sum grep cut dd hostname; do
  ln -s busybox "$root/bin/$applet"
done
ln -s ../bin/busybox "$root/sbin/init"
echo 'root::0:0:root:/root:/bin/sh' > "$root/etc/passwd"
echo 'root:x:0:' > "$root/etc/group"
echo varve-guest > "$root/etc/hostname"
cat > "$root/etc/inittab" <<'TXT'
::sysinit:/bin/mount -t proc proc /proc
::sysinit:/bin/mount -t sysfs sys /sys
::sysinit:/bin/mount -o remount,rw /
::sysinit:/bin/hostname -F /etc/hostname
ttyS0::respawn:/bin/getty -L 115200 ttyS0 vt100
::shutdown:/bin/umount -a -r
TXT

# vm-client's initrd brings the drivers; a second archive behind it replaces its init by one that mounts partition 1.
cp "$cache/vmlinuz" "$root/boot/vmlinuz"
mkdir "$work/initrd"
{
  printf '#!/bin/busybox sh\n/bin/busybox mount -t proc proc /proc\n/bin/busybox mount -t devtmpfs dev /dev\n'
  cat <<'TXT'
# In the order of vm-client's own init, which knows what depends on what.
/bin/busybox sh /modules.sh
n=0; while [ ! -b /dev/vda1 ] && [ $n -lt 50 ]; do /bin/busybox sleep 0.1; n=$((n+1)); done
/bin/busybox mount -t ext4 -o ro /dev/vda1 /new && /bin/busybox mount --move /dev /new/dev
/bin/busybox umount /proc
exec /bin/busybox switch_root /new /sbin/init
TXT
} > "$work/initrd/init"
chmod +x "$work/initrd/init"
(cd "$work" && mkdir unpacked && cd unpacked && "$cache/busybox" cpio -i -d -F "$cache/initrd" 2>/dev/null)
grep insmod "$work/unpacked/init" > "$work/initrd/modules.sh"
(cd "$work/initrd" && find . | "$cache/busybox" cpio -o -H newc 2>/dev/null) | cat "$cache/initrd" - > "$root/boot/initrd"

cat > "$root/boot/grub/grub.cfg" <<'TXT'
serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
echo "GRUB of the varve test disk"
linux /boot/vmlinuz console=ttyS0,115200 tsc=reliable lpj=4000000 mitigations=off panic=-1
initrd /boot/initrd
boot
TXT

# Sector 0: GRUB's boot code and the partition table; then its core image; from 1 MiB on the file system.
truncate -s 128M "$out"
echo 'start=2048, type=83, bootable' | /sbin/sfdisk -q "$out"
/sbin/mke2fs -q -t ext4 -L varve-boot -E "offset=1048576,root_owner=0:0" -d "$root" "$out" 127M
echo 'configfile (hd0,msdos1)/boot/grub/grub.cfg' > "$work/early.cfg"
grub-mkimage -O i386-pc -o "$work/core.img" -p '(hd0,msdos1)/boot/grub' -c "$work/early.cfg" \
  biosdisk part_msdos ext2 linux normal configfile serial terminal echo boot
(($(stat -c %s "$work/core.img") < 2047 * 512))
dd if=/usr/lib/grub/i386-pc/boot.img of="$out" bs=440 count=1 conv=notrunc status=none
dd if="$work/core.img" of="$out" bs=512 seek=1 conv=notrunc status=none
