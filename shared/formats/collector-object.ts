/*
 * The collector's own objects in the bucket (docs/formats/collector.md): numbered leases, which also carry retention time, and
 * the list of objects that wait to be deleted. Written and read by services/archiver/engine/collector-lease.ts and collector.ts.
 */
import { limits } from "#shared/domain/limits.ts";
import type { RetentionTime } from "#shared/domain/retention-clock.ts";
import { id, milliseconds, objectKey } from "./archive-shape.ts";
import { fields, integer, list, oneOf, text } from "./json-shape.ts";
import { type BadObject, type ObjectKind, openObject, sealObject } from "./sealed-object.ts";

export const leaseVersion = 1;
export const collectorStateVersion = 1;

export interface LeaseContent {
  readonly number: number;
  /** 16 hex digits, drawn by each process. */
  readonly holder: string;
  /** For people: host and process. */
  readonly who: string;
  /** A released lease is taken over at once, a held one after limits.collectorLeaseMs without a change. */
  readonly state: "held" | "released";
  readonly time: RetentionTime;
}

export interface Candidate {
  readonly key: string;
  readonly bytes: number;
  /** Retention time of the run that saw it unnamed first. */
  readonly sinceMs: number;
}

export interface CollectorState {
  /** Number of the lease under which it was written. */
  readonly number: number;
  /** Retention time of the last whole sweep. */
  readonly sweptMs: number;
  /** Ascending by key. */
  readonly candidates: readonly Candidate[];
  /** Deleted volumes, and the retention time at which a run saw it first. */
  readonly deletedVolumes: readonly { readonly volumeId: string; readonly sinceMs: number }[];
}

const digits = (value: number): string => String(value).padStart(10, "0");
export const leasePrefix = "collector/lease/";
export const statePrefix = "collector/state/";
export const leaseKey = (number: number): string => `${leasePrefix}${digits(number)}`;
export const stateKey = (number: number): string => `${statePrefix}${digits(number)}`;

/** The number in such a key, or null. */
export function collectorNumber(key: string, prefix: string): number | null {
  const rest = key.startsWith(prefix) ? key.slice(prefix.length) : "";
  return /^[0-9]{10}$/.test(rest) ? Number(rest) : null;
}

const leaseKind: ObjectKind<LeaseContent> = {
  magic: "VLEA",
  version: leaseVersion,
  name: "collector's lease",
  shape: fields({
    number: integer(1),
    holder: id,
    who: text(/^[\x20-\x7e]{1,128}$/),
    state: oneOf(["held", "released"]),
    time: fields({ timeMs: milliseconds, wallMs: milliseconds, pausedUntilMs: milliseconds }),
  }),
  mistake: () => null,
};

const stateKind: ObjectKind<CollectorState> = {
  magic: "VCOL",
  version: collectorStateVersion,
  name: "collector's state",
  shape: fields({
    number: integer(1),
    sweptMs: milliseconds,
    candidates: list(
      fields({ key: objectKey, bytes: integer(), sinceMs: milliseconds }),
      limits.collectorCandidatesMax,
    ),
    deletedVolumes: list(fields({ volumeId: id, sinceMs: milliseconds }), limits.collectorDeletedVolumesMax),
  }),
  mistake: ({ candidates }) => {
    const wrong = candidates.findIndex(
      (one, index) => index > 0 && (candidates[index - 1]?.key ?? "") >= one.key,
    );
    return wrong < 0 ? null : `candidates[${wrong}] is out of order`;
  },
};

export function encodeLease(lease: LeaseContent): Buffer {
  return sealObject(leaseKind, lease);
}

/** Reads a whole object. Never throws. */
export function decodeLease(object: Buffer): LeaseContent | BadObject {
  return openObject(leaseKind, object);
}

export function encodeCollectorState(state: CollectorState): Buffer {
  return sealObject(stateKind, state);
}

/** Reads a whole object. Never throws. */
export function decodeCollectorState(object: Buffer): CollectorState | BadObject {
  return openObject(stateKind, object);
}
