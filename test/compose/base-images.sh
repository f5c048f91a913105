#!/bin/sh
# Stand-ins for the images that docker-compose.yml and infra/docker/Dockerfile are made from, for a machine that reaches no registry of images:
# a bare Debian (debootstrap) with this repository's Node and npm, and with the test servers, under the names and the users of the
# real ones. Needs root, an engine (DOCKER_HOST) and npm ci. test/compose/try.sh calls it where the real ones can't be pulled.
set -eu
cd "$(dirname "$(readlink -f "$0")")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! docker image inspect varve-bare-debian >/dev/null 2>&1; then
  bare=$(mktemp -d)
  trap 'rm -rf "$work" "$bare"' EXIT
  chmod 755 "$bare"
  debootstrap --variant=minbase --include=busybox-static bookworm "$bare" >/dev/null
  rm -rf "$bare/var/cache/apt/archives"/*.deb "$bare/var/lib/apt/lists"/*
  ln -sf /bin/busybox "$bare/usr/local/bin/wget"
  tar -C "$bare" -c . | docker import - varve-bare-debian >/dev/null
fi

# image NAME: the Dockerfile comes on stdin, files are in $work/context
image() { DOCKER_BUILDKIT=0 docker build -q -t "$1" -f - "$work/context" >/dev/null && echo "$1"; }
base() { sed -n 's/^FROM \(node:[^ ]*\).*/\1/p' infra/docker/Dockerfile | head -n 1; }

mkdir "$work/context"
cp node_modules/node/bin/node "$work/context/"
cp -r "$(dirname "$(dirname "$(readlink -f "$(command -v npm)")")")" "$work/context/npm"
# This machine may reach npm's registry through a proxy that has its own certificate authority.
cp /etc/ssl/certs/ca-certificates.crt "$work/context/authorities.crt"
image "$(base)" <<'END'
FROM varve-bare-debian
ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/authorities.crt
COPY authorities.crt /etc/ssl/certs/authorities.crt
COPY node /usr/local/bin/node
COPY npm /usr/local/lib/node_modules/npm
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
END

cp "$(node scripts/test-server-binary.ts nats-server | sed -n 's/^nats-server: //p')" "$work/context/nats-server"
image "$(sed -n 's/^ *FROM \(nats:.*\)/\1/p' docker-compose.yml)" <<'END'
FROM varve-bare-debian
COPY nats-server /usr/local/bin/nats-server
END

cp "$(node scripts/test-server-binary.ts weed | sed -n 's/^weed: //p')" "$work/context/weed"
image "$(sed -n 's/^ *image: \(chrislusf.*\)/\1/p' docker-compose.yml)" <<'END'
FROM varve-bare-debian
COPY weed /usr/bin/weed
RUN groupadd -g 1000 seaweed && useradd -u 1000 -g seaweed seaweed && install -d -o seaweed -g seaweed /data
END
