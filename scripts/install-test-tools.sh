#!/bin/sh
# Installs the Debian packages that the tests use as real clients and peers: qemu, libnbd, nbdkit, fio, zstd and friends.
# scripts/test.ts runs it before any stage and .ci/run through it. Nothing missing: it says nothing and needs no rights.
# Without root it prints the one command to run and fails, because a test that lacks its tool must not look passed.
set -eu

packages="
  qemu-utils qemu-system-x86
  libnbd-bin python3-libnbd
  nbdkit nbd-server nbd-client
  fio e2fsprogs util-linux
  iproute2 iptables libfaketime
  grub-common grub-pc-bin fdisk
  debootstrap systemd strace procps python3 python3-zstandard zstd ca-certificates
"

missing=
for package in $packages; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
  echo "The tests need Debian packages that are not installed. Run:" >&2
  echo "  sudo apt-get install --no-install-recommends$missing" >&2
  exit 1
fi

export DEBIAN_FRONTEND=noninteractive
apt-get -q -o DPkg::Lock::Timeout=300 update
# shellcheck disable=SC2086
apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends $missing

# nbd-server as a package is also a service, which would take port 10809 from `npm start`; the tests start their own.
case $missing in
  *nbd-server*)
    if [ -d /run/systemd/system ]; then
      systemctl disable --now nbd-server
    elif [ -x /etc/init.d/nbd-server ]; then
      /etc/init.d/nbd-server stop
    fi
    ;;
esac
