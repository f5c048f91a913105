/*
 * The line that a rescue or an undelete took: its marker, its first manifest, and both again where the bucket lost them before they were
 * held. Used by rescuer.ts, which takes lines, manifest-start.ts, which finds one that was lost, and volume-archiver.ts, which keeps
 * the marker. Rules: docs/specs/retention.md, "A line that the bucket lost".
 */
import { lineMarkerKey, type VolumeManifest } from "#shared/domain/archive.ts";
import { bucketKeyOf } from "#shared/domain/bucket-keys.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { ArchiveSubject } from "#shared/ports/archive.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import type { HeldObject } from "./held-ledger.ts";
import { type FoundManifest, findManifest } from "./manifest-finder.ts";
import { rescuedElsewhere } from "./manifest-publisher.ts";

/** The first manifest of a line that goes on behind what `before` archived. */
export function firstOfLine(
  before: VolumeManifest,
  taken: Pick<VolumeManifest, "line" | "lineNumber" | "writtenAtMs">,
): VolumeManifest {
  const { archivedLsn } = before;
  return {
    ...before,
    sizeBytes: sizeAt(before, archivedLsn),
    ...taken,
    archiverEpoch: 1,
    number: 1,
    ancestors: [...before.ancestors, { line: before.line, lastLsn: archivedLsn }],
    archivedChecksum: "0000000000000000",
    // What names an entry that never reached the bucket names nothing.
    snapshots: before.snapshots.filter((snapshot) => snapshot.lsn <= archivedLsn),
    pins: before.pins.filter((pin) => pin.lsn <= archivedLsn),
  };
}

/** A resize that was not archived did not happen. */
export function sizeAt(manifest: VolumeManifest, lsn: number): number {
  return manifest.resizes.findLast((resize) => resize.lsn <= lsn)?.sizeBytes ?? manifest.beginBytes;
}

/** The number of the last line that anybody began to take; 0: none ever was. One LIST of a short prefix. */
export async function greatestMarker(store: ObjectStore, volumeId: string): Promise<number> {
  let greatest = 0;
  for await (const { key } of store.list(`volumes/${volumeId}/lines/`)) {
    if (bucketKeyOf(key).kind !== "line") continue;
    greatest = Math.max(greatest, Number(key.slice(key.lastIndexOf("/") + 1)));
  }
  return greatest;
}

/**
 * The bucket's newest manifest `seen` is of another line than our log. Where the last line that anybody took is nevertheless ours, and
 * no manifest of it or a later one is there, the bucket lost what it had stored of it: nobody else can have it. The first manifest of our
 * line, under the key of the one that it goes on behind. Null where the volume is somebody else's, or may be.
 */
export async function findLostLine(
  store: ObjectStore,
  { record, log, taken }: ArchiveSubject,
  seen: FoundManifest,
): Promise<FoundManifest | null> {
  const greatest = await greatestMarker(store, record.id);
  const known = taken?.id === log.line ? taken.number : null;
  const lineNumber = known ?? greatest;
  if (lineNumber <= seen.manifest.lineNumber || lineNumber < greatest) return null;
  const marker = await store.get(lineMarkerKey(record.id, lineNumber));
  if (marker === null ? known === null : marker.toString() !== log.line) return null;
  const beginLsn = log.state().oldestLsn;
  // Without its marker nothing stopped whoever had the volume before: where that one went on, the volume is his.
  if (marker === null && seen.manifest.archivedLsn >= beginLsn) return null;
  // With it, a late manifest may still have come after ours was taken: what it archived is not below our log.
  const before = await findManifest(store, record.id, (one) => one.archivedLsn < beginLsn);
  if (before === null) return null;
  const { writtenAtMs } = before.manifest;
  return { ...before, manifest: firstOfLine(before.manifest, { line: log.line, lineNumber, writtenAtMs }) };
}

/** Our line's marker as an object that must stay: without it whoever had the volume before would go on. */
export function markerAsHeld(
  store: ObjectStore,
  subject: ArchiveSubject,
  lineNumber: number,
  conditionalPut: boolean,
): HeldObject {
  const { record, log } = subject;
  const key = lineMarkerKey(record.id, lineNumber);
  const isOurs = async (): Promise<boolean> => {
    const found = await store.get(key);
    if (found !== null && found.toString() !== log.line) throw rescuedElsewhere(record.name);
    return found !== null;
  };
  const held: HeldObject = {
    key,
    check: isOurs,
    restore: async () => {
      await store.put(key, Buffer.from(log.line), conditionalPut ? { onlyNew: true } : {});
      if (!(await isOurs())) {
        throw new VarveError("LineMarkerLost", "Retry", `${key} is not in the bucket although it was stored`);
      }
      return [held];
    },
  };
  return held;
}
