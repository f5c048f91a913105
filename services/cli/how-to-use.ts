/*
 * What `varve up` prints about its volumes: the NBD URI of each, the image file, and one worked example for qemu, the
 * kernel and libnbd. Printed from facts only, so that every line can be pasted. commands/up.ts calls it.
 */
import { exactByteSize } from "#shared/domain/byte-size.ts";
import type { VolumeView } from "#shared/ports/volume-administration.ts";
import type { UpConfig } from "#shared/shell/config.ts";
import { addressText, type ListenAddress, nbdUri } from "#shared/shell/listen-address.ts";
import { pairs } from "./output.ts";

export function howToUse(views: readonly VolumeView[], config: UpConfig): string {
  const parts = views.length === 0 ? ["no volumes yet"] : views.map((view) => volumeLines(view, config.nbd));
  const example = views.find((view) => view.failure === null);
  const address = config.nbd[0];
  if (example !== undefined && address !== undefined) parts.push(examples(example, address));
  if (config.http !== null) parts.push(apiLines(addressText(config.http), views.length === 0));
  return parts.join("\n\n");
}

function volumeLines(view: VolumeView, addresses: readonly ListenAddress[]): string {
  const state = view.failure === null ? "" : "  (not served, see the warning below)";
  const rows = addresses.map((address) => ["uri", nbdUri(address, view.name)] as const);
  const lines = pairs([...rows, ["image", view.imagePath]]).replace(/^/gm, "  ");
  return `${view.name}  ${exactByteSize(view.sizeBytes)}  durability ${view.durability}${state}\n${lines}`;
}

function examples(view: VolumeView, address: ListenAddress): string {
  const uri = nbdUri(address, view.name);
  // A socket URI holds a question mark, which shells would take for a pattern.
  const quoted = address.kind === "unix" ? `'${uri}'` : uri;
  const rows = [
    ["qemu", `qemu-system-x86_64 -drive ${quoteDrive(`file=${uri},format=raw,if=virtio`, address)}`],
    ["kernel", kernelCommand(view, address)],
    ["libnbd", `nbdinfo ${quoted}; nbdcopy disk.img ${quoted}`],
  ] as const;
  return `use ${view.name}, for example:\n${pairs(rows).replace(/^/gm, "  ")}`;
}

function quoteDrive(drive: string, address: ListenAddress): string {
  return address.kind === "unix" ? `'${drive}'` : drive;
}

/** Attached by Varve, a disk lives through a restart; what may lose answered writes is not attached so. As root, both. */
function kernelCommand(view: VolumeView, address: ListenAddress): string {
  if (view.durability === "flush") {
    const place = address.kind === "unix" ? `-unix ${address.path}` : `${address.host} ${address.port}`;
    return `nbd-client ${place} /dev/nbd0 -N ${view.name}`;
  }
  const server = addressText(address) === "127.0.0.1:10809" ? "" : ` --server ${addressText(address)}`;
  return `${varveCommand()} attach ${view.name}${server}`;
}

function apiLines(address: string, empty: boolean): string {
  const url = `http://${address}`;
  const api = address === "127.0.0.1:8080" ? "" : ` --api ${url}`;
  const next = empty ? `volume create disk0 --size 10G${api}` : `volume list${api}`;
  return `API ${url}, described at ${url}/openapi.json; next: ${varveCommand()} ${next}`;
}

/** In a checkout that npm started, `varve` is in nobody's PATH. */
function varveCommand(): string {
  return process.env["npm_execpath"] === undefined ? "varve" : "npx varve";
}
