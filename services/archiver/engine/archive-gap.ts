/*
 * History that is given up: from the first entry that is not archived up to one that the image has. Becomes a gap of the manifest when
 * the bucket is there again; until then only the log's end says so, and a restart finds the same gap by looking at it. Owned by
 * volume-archiver.ts.
 */
import type { HistoryGap, VolumeManifest } from "#shared/domain/archive.ts";
import type { ArchiveSubject } from "#shared/ports/archive.ts";
import { checksumText } from "./manifest-publisher.ts";

/** The end of a record in the log: what the next one continues. */
export interface LogJoint {
  readonly lsn: number;
  readonly epoch: number;
  readonly checksum: bigint;
  /** Of the disk when it was asked for. Resizes behind the joint that it may have seen are archived later, and say the same again. */
  readonly sizeBytes: number;
}

/** The joint at `lsn`, which ends a record that the log has, or comes right before the oldest one. Null where there is none. */
export async function findJoint({ log, image }: ArchiveSubject, lsn: number): Promise<LogJoint | null> {
  const { sizeBytes } = image.state();
  const isThere = lsn >= log.state().oldestLsn;
  for await (const batch of log.read(isThere ? lsn : lsn + 1)) {
    const { epoch, firstLsn, entries } = batch;
    if (isThere) {
      const ends = firstLsn + entries.length - 1 === lsn;
      return ends ? { lsn, epoch, checksum: batch.checksum, sizeBytes } : null;
    }
    return firstLsn === lsn + 1 ? { lsn, epoch, checksum: batch.previousChecksum, sizeBytes } : null;
  }
  return null;
}

export class ArchiveGap {
  private joint: LogJoint | null = null;

  /** Given up, and not in a manifest yet. */
  get isOpen(): boolean {
    return this.joint !== null;
  }

  /** Everything up to the joint is given up. True where a manifest has to be asked for. */
  extend(joint: LogJoint): boolean {
    const isNew = this.joint === null;
    if (isNew || (this.joint?.lsn ?? 0) < joint.lsn) this.joint = joint;
    return isNew;
  }

  /** With the gap; the log goes on behind it. */
  applyTo(manifest: VolumeManifest): VolumeManifest {
    const { joint } = this;
    if (joint === null || joint.lsn <= manifest.archivedLsn) return manifest;
    return {
      ...manifest,
      sizeBytes: joint.sizeBytes,
      gaps: withGap(manifest.gaps, { fromLsn: manifest.archivedLsn + 1, toLsn: joint.lsn + 1 }),
      archivedLsn: joint.lsn,
      archivedEpoch: joint.epoch,
      archivedChecksum: checksumText(joint.checksum),
    };
  }

  /** A manifest was published: does it have all that was given up? */
  published(manifest: VolumeManifest): void {
    if (this.joint !== null && manifest.archivedLsn >= this.joint.lsn) this.joint = null;
  }
}

function withGap(gaps: readonly HistoryGap[], gap: HistoryGap): readonly HistoryGap[] {
  const last = gaps.at(-1);
  if (last?.toLsn !== gap.fromLsn) return [...gaps, gap];
  return [...gaps.slice(0, -1), { fromLsn: last.fromLsn, toLsn: gap.toLsn }];
}
