/*
 * What a manifest says of a volume beside its log, out of the history record that machines share. Used by archived-volume.ts at each
 * publishing, and to see whether anything changed, and by manifest-publisher.ts.
 */
import type { VolumeManifest } from "#shared/domain/archive.ts";
import { byPin, bySnapshot, type HistoryRecord } from "#shared/domain/history-record.ts";
import type { ManifestFacts } from "#shared/ports/archive.ts";

export function factsOf(history: HistoryRecord, deletedAtMs: number | null): ManifestFacts {
  const { snapshots, pins, origin, beginBytes, historyMs, residency, coldAfterMs, bucketAway } = history;
  return {
    snapshots: [...snapshots].sort(bySnapshot),
    pins: [...pins].sort(byPin),
    origin,
    beginBytes,
    historyMs,
    deletedAtMs,
    residency,
    coldAfterMs,
    bucketAway,
  };
}

type ToldFacts = Pick<
  VolumeManifest,
  "origin" | "beginBytes" | "historyMs" | "policy" | "deletedAtMs" | "pins" | "snapshots"
>;

/** As a manifest up to that entry says them. A snapshot or pin of an entry that is not archived waits for the next one. */
export function factsUpTo(facts: ManifestFacts, archivedLsn: number): ToldFacts {
  const { origin, beginBytes, historyMs, deletedAtMs, residency, coldAfterMs, bucketAway } = facts;
  return {
    origin,
    beginBytes,
    historyMs,
    policy: { residency, coldAfterMs, bucketAway },
    deletedAtMs,
    pins: facts.pins.filter(({ lsn }) => lsn <= archivedLsn),
    snapshots: facts.snapshots.filter(({ lsn }) => lsn <= archivedLsn),
  };
}

/** Whether the manifest says all of it already. */
export function isTold(facts: ManifestFacts, manifest: VolumeManifest): boolean {
  const { origin, beginBytes, historyMs, policy, deletedAtMs, pins, snapshots } = manifest;
  const told: ToldFacts = {
    origin,
    beginBytes,
    historyMs,
    ...(policy === undefined ? {} : { policy }),
    deletedAtMs,
    pins,
    snapshots,
  };
  return JSON.stringify(told) === JSON.stringify(factsUpTo(facts, manifest.archivedLsn));
}
