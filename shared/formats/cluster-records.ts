/*
 * Records of the shared key tables (docs/formats/cluster-records.md): nodes, placements and leases as one line of JSON and a
 * checksum line. What is damaged or written by a newer Varve is refused; the callers are the adapters over key tables.
 */
import {
  type LeaseRecord,
  leaseStates,
  machineNameMistake,
  type NodeRecord,
  type PlacementRecord,
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
const version = 1;

export interface ClusterRecords {
  readonly node: NodeRecord;
  readonly placement: PlacementRecord;
  readonly lease: LeaseRecord;
}

const name = text(machineNameMistake);
const plain = text(/^[\x20-\x7e]{0,255}$/);
const pool = fields<PoolRecord>({
  name,
  capacityBytes: integer(),
  freeBytes: integer(),
  quotaBytes: nullable(integer()),
  tags: list(name, limits.poolTagsMax),
});
const place = fields<ReplicaPlace>({ node: name, pool: name });

const shapes: Readonly<Record<keyof ClusterRecords, Shape>> = {
  node: fields<NodeRecord>({
    name,
    host: plain,
    version: plain,
    pools: list(pool, limits.poolsMax, 1),
    renewal: integer(),
  }),
  placement: fields<PlacementRecord>({
    volumeId: text(idPattern),
    beginBytes: integer(512),
    replicas: list(place, limits.replicasMax),
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
};

export function encodeClusterRecord<K extends keyof ClusterRecords>(
  kind: K,
  record: ClusterRecords[K],
): Buffer {
  const mistake = shapes[kind](record, kind);
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
  if (document["version"] !== version) {
    throw new VarveError("ClusterRecordVersionError", "Invalid", `${where}: its version is not known`, {
      hint: "It was written by a newer Varve: upgrade this process. Nothing was changed.",
      fields: { where },
    });
  }
  const mistake = shapes[kind](document["record"], kind);
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
