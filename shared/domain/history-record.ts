/*
 * What one volume keeps of its past beside its data, and the rules for it: snapshots, window, residency, origin, pins.
 * Stored as DATA/volumes/NAME/history.json (docs/formats/volume-history.md). The volume host reads and changes it; the
 * archiver repeats parts of it in each manifest. Pure.
 */
import type { ManifestPolicy, PointPin, SnapshotRecord, VolumeOrigin } from "./archive.ts";
import { VarveError } from "./errors.ts";
import { volumeNameMistake } from "./volume.ts";

/** The line of a log that a rescue or an undelete began. */
export interface TakenLine {
  /** 2 or more: the first line of a volume was taken from nobody. */
  readonly number: number;
  readonly id: string;
}

export interface HistoryRecord extends ManifestPolicy {
  readonly volumeId: string;
  /** Size of the disk before entry 1. */
  readonly beginBytes: number;
  /** Archiver tenures so far. */
  readonly archiverEpoch: number;
  /** Which line this machine took of the volume: the bucket may lose what it stored of that. Absent where it took none. */
  readonly line?: TakenLine;
  readonly historyMs: number;
  readonly origin: VolumeOrigin | null;
  readonly pins: readonly PointPin[];
  readonly snapshots: readonly SnapshotRecord[];
}

/** What a user may set of it. */
export type HistoryPolicy = Pick<HistoryRecord, "historyMs" | "residency" | "coldAfterMs" | "bucketAway">;

const dayMs = 24 * 60 * 60 * 1000;
/** A time span may have so much; beyond it arithmetic with wall times would say nothing. */
export const spanMsMax = 100 * 365 * dayMs;

export const defaultHistoryPolicy: HistoryPolicy = {
  historyMs: 7 * dayMs,
  residency: "full",
  coldAfterMs: 30 * dayMs,
  bucketAway: "stop",
};

/** The history of a volume that begins now, all zero. */
export function newHistoryRecord(volumeId: string, beginBytes: number): HistoryRecord {
  return {
    volumeId,
    beginBytes,
    archiverEpoch: 0,
    ...defaultHistoryPolicy,
    origin: null,
    pins: [],
    snapshots: [],
  };
}

/** With one more snapshot, which checkNewSnapshot() let pass. */
export function withSnapshot(record: HistoryRecord, snapshot: SnapshotRecord): HistoryRecord {
  return { ...record, snapshots: [...record.snapshots, snapshot].sort(bySnapshot) };
}

/** Throws Invalid where the volume may not get a snapshot of this name. */
export function checkNewSnapshot(record: HistoryRecord, volume: string, name: string, most: number): void {
  checkSnapshotName(name);
  const taken = record.snapshots.find((one) => one.name === name);
  if (taken !== undefined) {
    throw new VarveError(
      "SnapshotExistsError",
      "Invalid",
      `volume ${volume} has a snapshot ${name} already`,
      {
        hint: `Choose another name, or delete that one first: varve snapshot delete ${volume} ${name}.`,
        fields: { name: volume, snapshot: name, lsn: taken.lsn },
      },
    );
  }
  if (record.snapshots.length < most) return;
  throw new VarveError("SnapshotsFullError", "Full", `volume ${volume} has ${most} snapshots, its maximum`, {
    hint: "Delete some that you no longer need: varve snapshot list, varve snapshot delete.",
    fields: { name: volume, snapshotsMax: most },
  });
}

export function checkSnapshotName(name: string): void {
  const mistake = volumeNameMistake(name);
  if (mistake === null) return;
  throw new VarveError("SnapshotNameError", "Invalid", `snapshot name ${JSON.stringify(name)} ${mistake}`, {
    hint: "For example: before-upgrade, nightly.3, 2026-11-20.",
    fields: { snapshot: name },
  });
}

/** Who pins the point that a node's replica reads its evicted extents from; no volume's id has this form. */
export function replicaPinHolder(node: string): string {
  return `replica:${node}`;
}

/** The node of such a pin; null: somebody else's. */
export function replicaPinNode(holder: string): string | null {
  return holder.startsWith("replica:") ? holder.slice("replica:".length) : null;
}

export function bySnapshot(one: SnapshotRecord, other: SnapshotRecord): number {
  return one.lsn - other.lsn || (one.name < other.name ? -1 : 1);
}

export function byPin(one: PointPin, other: PointPin): number {
  return one.lsn - other.lsn || (one.holder < other.holder ? -1 : 1);
}

/** Pins with one more; one that is there already stays one. */
export function withPin(record: HistoryRecord, pin: PointPin): HistoryRecord {
  const others = record.pins.filter((one) => one.lsn !== pin.lsn || one.holder !== pin.holder);
  return { ...record, pins: [...others, pin].sort(byPin) };
}

/** Without the pins of a holder; with `lsn`, without that one only. */
export function withoutPin(record: HistoryRecord, holder: string, lsn?: number): HistoryRecord {
  const gone = (pin: PointPin): boolean => pin.holder === holder && (lsn === undefined || pin.lsn === lsn);
  return { ...record, pins: record.pins.filter((pin) => !gone(pin)) };
}
