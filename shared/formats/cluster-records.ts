/*
/*
 * Records of the shared key tables (docs/formats/cluster-records.md): nodes, drains, pools, placements, leases and archives as one line of JSON
 * and a checksum line. What is damaged or written by a newer Varve is refused; the callers are the adapters over key tables.
 */
import {
  type ArchiveRecord,
  archiveStates,
  type DrainRecord,
  type FileLimits,
  type HeldBase,
  type LeaseRecord,
  leaseStates,
  machineNameMistake,
  type NodeRecord,
  type PlacementOrigin,
  type PlacementRecord,
  type PoolOrder,
  type PoolOrders,
  type PoolRecord,
  type ReplicaPlace,
} from "#shared/domain/cluster.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import { idPattern } from "./binary-fields.ts";
import { checksumOf } from "./checksum.ts";
import { fields, integer, list, nullable, oneOf, type Shape, text } from "./json-shape.ts";

/** 16 pools of 16 tags each stay far below it. */
export const clusterRecordBytesMax = 64 * 1024;
/** 2: a placement with a replica that leaves, an archive with a held base. 3: the placement of a clone. Everything else is 1. */
const versions = [1, 2, 3] as const;
type RecordVersion = (typeof versions)[number];

export interface ClusterRecords {
  readonly node: NodeRecord;
  readonly placement: PlacementRecord;
  readonly drain: DrainRecord;
  readonly pools: PoolOrders;
  readonly files: FileLimits;
  readonly lease: LeaseRecord;
  readonly archive: ArchiveRecord;
}

const name = text(machineNameMistake);
const plain = text(/^[\x20-\x7e]{0,255}$/);
const pool = fields<Omit<PoolRecord, "fileBytesMax">>({
  name,
  capacityBytes: integer(),
  freeBytes: integer(),
  quotaBytes: nullable(integer()),
  tags: list(name, limits.poolTagsMax),
});
const poolOrder = fields<PoolOrder>({
  name,
  quotaBytes: nullable(integer()),
  tags: nullable(list(name, limits.poolTagsMax)),
});
const place = fields<Omit<ReplicaPlace, "leaving">>({ node: name, pool: name });
const leavingPlace = fields<Required<ReplicaPlace>>({
  node: name,
  pool: name,
  leaving: (value, at) => (value === true ? null : `${at} is not true`),
});
const placeOrLeaving: Shape = (value, at) =>
  typeof value === "object" && value !== null && "leaving" in value
    ? leavingPlace(value, at)
    : place(value, at);
const placementOf = (replicas: Shape): Shape =>
  fields<Omit<PlacementRecord, "origin">>({
    volumeId: text(idPattern),
    beginBytes: integer(512),
    replicas,
  });

const archiveFields = {
  archiver: name,
  archiverEpoch: integer(1),
  line: text(idPattern),
  archivedLsn: integer(),
  heldLsn: integer(),
  lastBaseLsn: integer(),
  state: oneOf(archiveStates),
  error: plain,
};

const shapes: Readonly<Record<keyof ClusterRecords, Shape>> = {
  node: fields<NodeRecord>({
    name,
    host: plain,
    version: plain,
    pools: list(pool, limits.poolsMax, 1),
    renewal: integer(),
  }),
  placement: placementOf(list(place, limits.replicasMax)),
  drain: fields<DrainRecord>({ node: name }),
  pools: fields<PoolOrders>({ node: name, pools: list(poolOrder, limits.poolsMax) }),
  files: fields<FileLimits>({
    node: name,
    pools: list(fields<FileLimits["pools"][number]>({ name, fileBytesMax: integer() }), limits.poolsMax),
  }),
  lease: fields<LeaseRecord>({
    holder: name,
    address: plain,
    tenure: text(idPattern),
    epoch: integer(1),
    renewal: integer(),
    leaseMs: integer(100, 600_000),
    state: oneOf(leaseStates),
  }),
  archive: fields<Omit<ArchiveRecord, "heldBase">>(archiveFields),
};

const tieredArchive: Shape = fields<Required<ArchiveRecord>>({
  ...archiveFields,
  heldBase: fields<HeldBase>({ s: integer(), e: integer() }),
});

/** One place more than replicas: the one that takes over from the one that leaves. */
const leavingPlacement = placementOf(list(placeOrLeaving, limits.replicasMax + 1, 1));
/** Of version 1 or 2, or empty; and where the disk begins: who does not know of that would begin with an empty one. */
const clonePlacement: Shape = fields<Required<PlacementRecord>>({
  volumeId: text(idPattern),
  beginBytes: integer(512),
  replicas: list(placeOrLeaving, limits.replicasMax + 1),
  origin: fields<PlacementOrigin>({ volumeId: text(idPattern), lsn: integer() }),
});

function shapeOf(kind: keyof ClusterRecords, version: RecordVersion): Shape | null {
  if (version === 1) return shapes[kind];
  if (kind === "archive") return version === 2 ? tieredArchive : null;
  if (kind !== "placement") return null;
  return version === 2 ? leavingPlacement : clonePlacement;
}

function versionOf(record: ClusterRecords[keyof ClusterRecords]): RecordVersion {
  if ("heldBase" in record && record.heldBase !== undefined) return 2;
  if (!("replicas" in record)) return 1;
  if (record.origin !== undefined) return 3;
  return record.replicas.some(({ leaving }) => leaving === true) ? 2 : 1;
}

export function encodeClusterRecord<K extends keyof ClusterRecords>(
  kind: K,
  record: ClusterRecords[K],
): Buffer {
  const version = versionOf(record);
  const mistake = shapeOf(kind, version)?.(record, kind) ?? null;
  invariant(mistake === null, `a ${kind} record is valid: ${mistake}`);
  const line = `${JSON.stringify({ format: `varve-${kind}`, version, record })}\n`;
  return Buffer.from(`${line}xxh64:${sumOf(line)}\n`);
}

/** Throws Corrupt for damage and for what no Varve writes, Invalid for a newer version. `where`: the key, for the message. */
export function decodeClusterRecord<K extends keyof ClusterRecords>(
  kind: K,
  bytes: Uint8Array,
  where: string,
): ClusterRecords[K] {
  if (bytes.length > clusterRecordBytesMax) throw damaged(where, `it has ${bytes.length} bytes`);
  const whole = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
  const lineEnd = whole.indexOf("\n") + 1;
  const line = whole.slice(0, lineEnd);
  if (lineEnd === 0 || whole.slice(lineEnd) !== `xxh64:${sumOf(line)}\n`) {
    throw damaged(where, "its checksum does not match its text");
  }
  let document: Readonly<Record<string, unknown>> | null;
  try {
    document = JSON.parse(line) as Readonly<Record<string, unknown>>;
  } catch (cause) {
    throw damaged(where, "it is not JSON", cause);
  }
  if (typeof document !== "object" || document === null) throw damaged(where, "it is not a JSON object");
  if (document["format"] !== `varve-${kind}`) throw damaged(where, `its format is not "varve-${kind}"`);
  const version = versions.find((one) => one === document["version"]);
  const shape = version === undefined ? null : shapeOf(kind, version);
  if (shape === null) {
    throw new VarveError("ClusterRecordVersionError", "Invalid", `${where}: its version is not known`, {
      hint: "It was written by a newer Varve: upgrade this process. Nothing was changed.",
      fields: { where },
    });
  }
  const mistake = shape(document["record"], kind);
  if (mistake !== null) throw damaged(where, mistake);
  return document["record"] as ClusterRecords[K];
}

function sumOf(line: string): string {
  return checksumOf(Buffer.from(line, "latin1")).toString(16).padStart(16, "0");
}

function damaged(where: string, what: string, cause?: unknown): VarveError {
  return new VarveError("ClusterRecordDamagedError", "Corrupt", `${where}: not a usable record: ${what}`, {
    hint: "Nothing was changed. Remove the key, and the process that owns it writes it again.",
    fields: { where },
    cause,
  });
}
