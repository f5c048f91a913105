/*
 * After a failed write or sync: copies every record since the last good sync, same bytes, from the drafts in memory into fresh
 * segments, and lets those supersede by writing their headers last. The same pages are never synced again. Called by the
 * embedded writer when no write is under way; on failure the log halts. docs/specs/embedded-log.md, "After a failed write".
 */
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import { writeSegmentHeader } from "#shared/formats/log-segment.ts";
import type { SlabPiece } from "#shared/ports/slab.ts";
import type { DraftQueue } from "./draft-queue.ts";
import type { LogPosition } from "./group-writer.ts";
import type { LogSetup } from "./log-options.ts";
import { recordBytesOfDraft } from "./record-draft.ts";
import { type LogSegment, segmentBodyStart } from "./segment-file.ts";
import type { SegmentSet } from "./segment-set.ts";

/** A fresh segment and the drafts, by place in the queue, that go into it. */
interface Part {
  readonly segment: LogSegment;
  readonly from: number;
  to: number;
}

export interface RepairParts {
  readonly setup: LogSetup;
  readonly set: SegmentSet;
  readonly queue: DraftQueue;
  readonly position: LogPosition;
  /** Adds one segment ahead, or rejects. */
  readonly secure: () => Promise<void>;
}

/** Resolves when all undurable drafts stand durable in fresh segments; room for those that wait is secured too. */
export async function rewriteUndurable(parts: RepairParts): Promise<void> {
  const { set, queue, secure } = parts;
  const count = queue.undurable;
  const fromLsn = count > 0 ? queue.undurableAt(0).firstLsn : parts.position.durableLsn + 1;
  for (const segment of set.live) segment.cutAt(fromLsn);
  const fresh: Part[] = [];
  for (let index = 0; index < count; index += 1) {
    const draft = queue.undurableAt(index);
    let segment = set.place(draft.recordBytes);
    while (segment === null) {
      await secure();
      segment = set.place(draft.recordBytes);
    }
    if (!segment.started) {
      segment.start(draft.firstLsn, draft.previousChecksum);
      fresh.push({ segment, from: index, to: index });
    }
    const part = fresh.at(-1);
    invariant(part !== undefined && part.segment === segment, "rewritten records go to fresh segments only");
    segment.notePlaced(draft.firstLsn, segment.endOffset, draft.recordBytes, draft.previousChecksum);
    part.to = index + 1;
  }
  for (const part of fresh) await writeRecords(parts, part);
  for (const part of fresh.toReversed()) await writeHeader(parts, part.segment);
  while (!set.replan(waitingBytes(queue))) await secure();
}

async function writeRecords(parts: RepairParts, part: Part): Promise<void> {
  const { queue, setup } = parts;
  let offset = segmentBodyStart;
  for (let index = part.from; index < part.to; ) {
    const pieces: SlabPiece[] = [];
    let bytes = 0;
    for (; index < part.to && pieces.length < setup.groupBatchesMax; index += 1) {
      const draft = queue.undurableAt(index);
      if (bytes > 0 && bytes + draft.recordBytes > setup.groupBytesMax) break;
      pieces.push({ slab: draft.slab, start: 0, length: draft.recordBytes });
      bytes += draft.recordBytes;
    }
    await part.segment.writable.writeDurable(pieces, offset);
    offset += bytes;
  }
  part.segment.preparedBytes = Math.max(part.segment.preparedBytes, offset);
}

async function writeHeader(parts: RepairParts, segment: LogSegment): Promise<void> {
  const slab = parts.setup.store.allocateSlab(limits.blockBytes);
  writeSegmentHeader(slab.bytes, 0, {
    volumeId: parts.setup.volumeId,
    line: parts.position.line,
    sequence: segment.sequence,
    segmentBytes: segment.sizeBytes,
    firstLsn: segment.firstLsn,
    durableLsn: parts.position.durableLsn,
    previousChecksum: segment.previousChecksum,
  });
  await segment.writable.writeDurable([{ slab, start: 0, length: segmentBodyStart }], 0);
}

function* waitingBytes(queue: DraftQueue): Generator<number, void, undefined> {
  for (let index = 0; index < queue.waiting; index += 1) yield recordBytesOfDraft(queue.waitingAt(index));
}
