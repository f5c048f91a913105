/*
 * `varve volume create|list|show|set|resize|delete`: reads flags, calls volume-access.ts, prints. All checks of names and
 * sizes that could be made here are made where the volume is changed, so that CLI and API can't differ.
 */
import type { ApiConnection, ApiVolume } from "#shared/api/http-api.ts";
import { byteSizeFrom, exactByteSize, readableByteSize } from "#shared/domain/byte-size.ts";
import { durabilities, isDurability, type VolumeDurability } from "#shared/domain/volume.ts";
import { type CommandLine, UsageError } from "../command-line.ts";
import { pairs, printJson, printLine, table } from "../output.ts";
import { withVolumes } from "../volume-access.ts";

const nameOf = (line: CommandLine): string => line.args[0] ?? "";
const wantsJson = (line: CommandLine): boolean => line.values.has("json");

async function create(line: CommandLine): Promise<number> {
  const size = required(line, "size", "10G");
  const durability = durabilityOf(line) ?? "write";
  const volume = { name: nameOf(line), sizeBytes: byteSizeFrom(size, "--size"), durability };
  const created = await withVolumes(line, async (volumes) => volumes.create(volume));
  printChanged(line, created, `created ${summary(created)}`);
  return 0;
}

async function list(line: CommandLine): Promise<number> {
  const found = await withVolumes(line, async (volumes) => volumes.list());
  if (wantsJson(line)) printJson(found);
  else
    printLine(
      found.length === 0 ? "no volumes; varve volume create NAME --size SIZE makes one" : volumeTable(found),
    );
  return 0;
}

async function show(line: CommandLine): Promise<number> {
  const { volume, clients } = await withVolumes(line, async (volumes) => ({
    volume: await volumes.show(nameOf(line)),
    clients: await volumes.connections(nameOf(line)),
  }));
  if (wantsJson(line)) printJson({ ...volume, connections: clients });
  else printLine(detail(volume, clients));
  return 0;
}

async function set(line: CommandLine): Promise<number> {
  required(line, "durability", "write");
  const durability = durabilityOf(line) ?? "write";
  const changed = await withVolumes(line, async (volumes) => volumes.setDurability(nameOf(line), durability));
  printChanged(line, changed, `${changed.name} has durability ${changed.durability}`);
  return 0;
}

async function resize(line: CommandLine): Promise<number> {
  const sizeBytes = byteSizeFrom(required(line, "size", "20G"), "--size");
  const shrink = line.values.has("shrink");
  const changed = await withVolumes(line, async (volumes) => volumes.resize(nameOf(line), sizeBytes, shrink));
  const later = changed.attachedClients > 0 ? "; attached clients see it when they reconnect" : "";
  printChanged(line, changed, `${changed.name} has ${exactByteSize(changed.sizeBytes)} now${later}`);
  return 0;
}

async function remove(line: CommandLine): Promise<number> {
  await withVolumes(line, async (volumes) => volumes.delete(nameOf(line)));
  if (wantsJson(line)) printJson({ deleted: nameOf(line) });
  else printLine(`deleted ${nameOf(line)}`);
  return 0;
}

export const volumeCommands = { create, list, show, set, resize, delete: remove };

function required(line: CommandLine, flag: string, example: string): string {
  const value = line.values.get(flag)?.[0];
  if (value !== undefined) return value;
  const path = line.command.path.join(" ");
  throw new UsageError(
    [`--${flag} is missing: varve ${path} ${nameOf(line)} --${flag} ${example}`],
    `See: varve help ${path}.`,
  );
}

function durabilityOf(line: CommandLine): VolumeDurability | null {
  const value = line.values.get("durability")?.[0];
  if (value === undefined) return null;
  if (isDurability(value)) return value;
  throw new UsageError(
    [`--durability: "${value}" is neither ${durabilities.join(" nor ")}`],
    "write: a reply means durable. flush: FLUSH and FUA mean durable, as with any disk's cache.",
  );
}

function printChanged(line: CommandLine, volume: ApiVolume, text: string): void {
  if (wantsJson(line)) printJson(volume);
  else printLine(text);
}

function summary(volume: ApiVolume): string {
  const uri = volume.uris[0];
  return `${volume.name}: ${exactByteSize(volume.sizeBytes)}, durability ${volume.durability}${uri === undefined ? "" : `, ${uri}`}`;
}

function volumeTable(volumes: readonly ApiVolume[]): string {
  return table<ApiVolume>(
    [
      { title: "NAME", cell: (one) => one.name },
      { title: "SIZE", right: true, cell: (one) => exactByteSize(one.sizeBytes) },
      {
        title: "USED",
        right: true,
        cell: (one) => (one.figures === null ? "-" : readableByteSize(one.figures.imageAllocatedBytes)),
      },
      {
        title: "LOG",
        right: true,
        cell: (one) => (one.figures === null ? "-" : readableByteSize(one.figures.logDiskBytes)),
      },
      { title: "DURABILITY", cell: (one) => one.durability },
      { title: "STATE", cell: (one) => one.condition },
      { title: "CLIENTS", right: true, cell: (one) => String(one.attachedClients) },
    ],
    volumes,
  );
}

function detail(volume: ApiVolume, clients: readonly ApiConnection[]): string {
  const { figures, failure } = volume;
  const rows: (readonly [string, string | null])[] = [
    ["name", volume.name],
    ["id", volume.id],
    ["size", `${exactByteSize(volume.sizeBytes)} (${volume.sizeBytes} bytes)`],
    ["durability", volume.durability],
    ["created", volume.createdAt],
    ["state", volume.condition],
    ["failure", failure === null ? null : failure.message],
    ["what to do", failure === null || failure.hint === "" ? null : failure.hint],
    ...volume.uris.map((uri) => ["uri", uri] as const),
    ["image", volume.imagePath],
    ["log", volume.logPath],
  ];
  if (figures !== null) {
    rows.push(
      ["image on disk", readableByteSize(figures.imageAllocatedBytes)],
      ["log on disk", readableByteSize(figures.logDiskBytes)],
      ["log entries", `${figures.oldestLsn} to ${figures.lastLsn}, durable ${figures.durableLsn}`],
      ["image has", `entry ${figures.appliedLsn}, checkpoint at ${figures.checkpointLsn}`],
      ["line, epoch", `${figures.line}, ${figures.epoch}`],
    );
  }
  rows.push(["clients", String(volume.attachedClients)]);
  const text = pairs(rows);
  if (clients.length === 0) return text;
  const clientTable = table<ApiConnection>(
    [
      { title: "CLIENT", cell: (one) => one.peer },
      { title: "IN FLIGHT", right: true, cell: (one) => String(one.requestsInFlight) },
      { title: "READ", right: true, cell: (one) => readableByteSize(one.counters["readBytes"] ?? 0) },
      { title: "WRITTEN", right: true, cell: (one) => readableByteSize(one.counters["writtenBytes"] ?? 0) },
    ],
    clients,
  );
  return `${text}\n\n${clientTable}`;
}
