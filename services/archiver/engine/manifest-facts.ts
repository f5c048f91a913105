/*
 * What a manifest says of a volume beside its log, out of the history record that machines share. Used by archived-volume.ts at each
 * publishing, and to see whether anything changed.
 */
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
