/*
 * `varve volume create|list|show|set|resize|delete`: reads flags, calls volume-access.ts, prints. All checks of names and
 * sizes that could be made here are made where the volume is changed, so that CLI and API can't differ.
 */
import type { ApiConnection, ApiVolume } from "#shared/api/http-api.ts";
import { byteSizeFrom, exactByteSize, readableByteSize } from "#shared/domain/byte-size.ts";
import { limits } from "#shared/domain/limits.ts";
import {
  durabilities,
  isDurability,
  isReadPolicy,
  type ReadPolicy,
  readPolicies,
  type VolumeDurability,
} from "#shared/domain/volume.ts";
import { type CommandLine, UsageError } from "../command-line.ts";
import { pairs, printJson, printLine, table } from "../output.ts";
import { PastAccess } from "../past-access.ts";
import { policyOf } from "../policy-flags.ts";
import { withVolumes } from "../volume-access.ts";
import { finish } from "./past.ts";

const nameOf = (line: CommandLine): string => line.args[0] ?? "";
const wantsJson = (line: CommandLine): boolean => line.values.has("json");

async function create(line: CommandLine): Promise<number> {
  const from = line.values.get("from")?.[0];
  if (from !== undefined) return await createFrom(line, from);
  const size = required(line, "size", "10G");
  const durability = durabilityOf(line) ?? "write";
  const sizeBytes = byteSizeFrom(size, "--size");
  const replicas = replicasOf(line);
  const [name, reads, policy] = [nameOf(line), readsOf(line), policyOf(line)];
  const volume = { name, sizeBytes, durability, reads, replicas, policy };
  const created = await withVolumes(line, async (volumes) => volumes.create(volume));
  printChanged(line, created, `created ${summary(created)}`);
  return 0;
}

function replicasOf(line: CommandLine): number | null {
  const text = line.values.get("replicas")?.[0];
  if (text === undefined) return null;
  if (/^[1-9]$/.test(text)) return Number(text);
  throw new UsageError(
    [`--replicas: "${text}" is no number of replicas; a volume has 1 to ${limits.replicasMax}`],
    "For example: --replicas 2.",
  );
}

/** Clone or restore: by a server only, because it needs the parent's past. */
async function createFrom(line: CommandLine, from: string): Promise<number> {
  const at = from.indexOf("@");
  if (at <= 0 || at === from.length - 1) {
    throw new UsageError(
      [`--from: "${from}" is not VOLUME@POINT`],
      "For example: --from disk0@before-upgrade, disk0@lsn:120, disk0@2026-11-20T10:15:00Z.",
    );
  }
  if (line.values.has("data")) {
    throw new UsageError(
      ["--from and --data exclude each other"],
      "A past is read by a running server: start varve up, then leave out --data.",
    );
  }
  const size = line.values.get("size")?.[0];
  const durability = durabilityOf(line);
  const replicas = replicasOf(line);
  const access = new PastAccess(line);
  const started = await access.clone(from.slice(0, at), {
    name: nameOf(line),
    point: from.slice(at + 1),
    ...(size === undefined ? {} : { size: byteSizeFrom(size, "--size") }),
    ...(durability === null ? {} : { durability }),
    ...(replicas === null ? {} : { replicas }),
    ...policyOf(line),
  });
  if (!wantsJson(line))
    printLine(`created ${summary(started.volume)}, from entry ${started.point.lsn} of ${from}`);
  const job = await finish(line, access, started.job);
  if (wantsJson(line)) printJson({ ...started, job });
  return 0;
}

async function list(line: CommandLine): Promise<number> {
  if (line.values.has("deleted")) return await (await import("./bucket.ts")).listDeleted(line);
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
  const [durability, reads] = [durabilityOf(line), readsOf(line)];
  const policy = policyOf(line);
  if (durability === null && reads === null && Object.keys(policy).length === 0) {
    throw new UsageError(
      [
        `varve volume set ${nameOf(line)} sets nothing: give --durability, --reads, --history, --residency, --cold-after or --bucket-away`,
      ],
      "See: varve help volume set.",
    );
  }
  const changed = await withVolumes(line, async (volumes) =>
    volumes.set(nameOf(line), { durability, reads, policy }),
  );
  const text = `${changed.name} has durability ${changed.durability}, reads ${changed.reads}${policyText(changed)}`;
  printChanged(line, changed, text);
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
  const left = await withVolumes(line, async (volumes) => {
    await volumes.delete(nameOf(line));
    return (await volumes.list()).find((one) => one.name === nameOf(line) && one.condition === "deleting");
  });
  if (wantsJson(line)) printJson({ deleted: nameOf(line) });
  else
    printLine(
      `deleted ${nameOf(line)}${left === undefined ? "" : `; its files stay, and its name is taken: ${stateText(left)}`}`,
    );
  return 0;
}

function stateText({ condition, heldInMs }: ApiVolume): string {
  if (condition !== "deleting") return condition;
  return `deleting, ${heldInMs === null ? "" : `${Math.ceil(heldInMs / 1000)} s `}until the bucket holds it`;
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

function readsOf(line: CommandLine): ReadPolicy | null {
  const value = line.values.get("reads")?.[0];
  if (value === undefined) return null;
  if (isReadPolicy(value)) return value;
  throw new UsageError(
    [`--reads: "${value}" is neither ${readPolicies.join(" nor ")}`],
    "What a gateway that can't prove that it still serves the volume answers: its last state, or nothing.",
  );
}

function policyText({ past }: ApiVolume): string {
  if (past === null) return "";
  const cold = past.residency === "tiered" ? `, cold after ${past.coldAfter}` : "";
  return `, history ${past.history}, residency ${past.residency}${cold}, bucket away: ${past.bucketAway}`;
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
      { title: "STATE", cell: stateText },
      { title: "CLIENTS", right: true, cell: (one) => String(one.attachedClients) },
    ],
    volumes,
  );
}

function pastRows({ past }: ApiVolume): readonly (readonly [string, string | null])[] {
  if (past === null) return [];
  const { extents, origin } = past;
  const archive =
    past.archive === "running" ? `up to entry ${past.archivedLsn}, safe up to ${past.heldLsn}` : past.archive;
  const tiered = past.residency === "tiered" ? `, cold after ${past.coldAfter}` : "";
  const snapshots = `${past.snapshots} snapshot${past.snapshots === 1 ? "" : "s"}`;
  const oldest =
    past.retainedFromLsn === null ? "" : `, every moment from entry ${Math.max(1, past.retainedFromLsn)} on`;
  const { fillBytesPerSecond: rate } = past;
  const elsewhere = extents === null ? 0 : extents.total - extents.local;
  return [
    ["history", past.archive === "off" ? "none: no bucket" : `${past.history}, ${snapshots}${oldest}`],
    ["archive", past.archive === "off" ? null : archive],
    ["archive trouble", past.archiveError === null ? null : past.archiveError.message],
    [
      "what to do",
      past.archiveError === null || past.archiveError.hint === "" ? null : past.archiveError.hint,
    ],
    ["bucket away", past.archive === "off" ? null : awayText[past.bucketAway]],
    ["residency", `${past.residency}${tiered}`],
    ["fill rate", rate === null ? null : `${readableByteSize(rate)}/s at most`],
    ["origin", origin === null ? null : `${origin.name} at entry ${origin.lsn}`],
    [
      "extents",
      elsewhere === 0 || extents === null
        ? null
        : `${extents.local} of ${extents.total} local (${elsewhere} in the bucket)`,
    ],
    ["job", past.job],
  ];
}

const awayText = {
  stop: "stop: the log grows to its limit, then writes are refused",
  "drop history": "drop history: at 90 % of the log's limit the past is given up, writes go on",
} as const;

function detail(volume: ApiVolume, clients: readonly ApiConnection[]): string {
  const { figures, failure } = volume;
  const rows: (readonly [string, string | null])[] = [
    ["name", volume.name],
    ["id", volume.id],
    ["size", `${exactByteSize(volume.sizeBytes)} (${volume.sizeBytes} bytes)`],
    ["durability", volume.durability],
    ["reads", volume.reads],
    ["created", volume.createdAt],
    ["state", stateText(volume)],
    ["failure", failure === null ? null : failure.message],
    ["what to do", failure === null || failure.hint === "" ? null : failure.hint],
    ...volume.uris.map((uri) => ["uri", uri] as const),
    ["image", volume.imagePath],
    ["log", volume.logPath],
    ...pastRows(volume),
  ];
  if (figures !== null) {
    rows.push(
      ["image on disk", readableByteSize(figures.imageAllocatedBytes)],
      [
        "log on disk",
        `${readableByteSize(figures.logDiskBytes)} of ${readableByteSize(figures.logBytesMax)} at most`,
      ],
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
