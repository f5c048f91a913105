/*
 * A manifest with one more segment: its reference, what it says of size and rollbacks, and how far the log is archived with it.
 * Called by volume-archiver.ts at the moment of publishing.
 */
import type { VolumeManifest } from "#shared/domain/archive.ts";
import type { UploadedSegment } from "./log-sealer.ts";
import { checksumText } from "./manifest-publisher.ts";

export function withSegment(
  manifest: VolumeManifest,
  { ref, summary, lastChecksum, lastEpoch }: UploadedSegment,
): VolumeManifest {
  const rebases = [...manifest.rebases];
  const resizes = [...manifest.resizes];
  let { sizeBytes } = manifest;
  for (const event of summary.events) {
    if (event.kind === "rebase") rebases.push({ lsn: event.lsn, toLsn: event.toLsn });
    if (event.kind !== "resize") continue;
    ({ sizeBytes } = event);
    resizes.push({ lsn: event.lsn, sizeBytes });
  }
  return {
    ...manifest,
    segments: [...manifest.segments, ref],
    rebases,
    resizes,
    sizeBytes,
    archivedLsn: ref.lastLsn,
    archivedEpoch: lastEpoch,
    archivedChecksum: checksumText(lastChecksum),
  };
}
