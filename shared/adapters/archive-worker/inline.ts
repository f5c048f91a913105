/*
 * The archive thread's twin without a thread: the same work on the caller's, a turn later. For tests and the simulator, where
 * every step must be in one order.
 */
import type { ExtentRun } from "#shared/domain/archive.ts";
import type {
  ArchiveWorker,
  BuiltPage,
  HashedExtent,
  SealedSegment,
  SegmentRecords,
  SegmentTail,
} from "#shared/ports/archive-worker.ts";
import { chunkOf, hashOf, page, seal, touched } from "./tasks.ts";

export class InlineArchiveWorker implements ArchiveWorker {
  async seal(records: SegmentRecords, level: number): Promise<SealedSegment> {
    return seal(records, level);
  }

  async page(volumeId: string, key: string, segments: readonly SegmentTail[]): Promise<BuiltPage> {
    return page(volumeId, key, segments);
  }

  async touched(
    segments: readonly SegmentTail[],
    pages: readonly Uint8Array[],
    afterLsn: number,
  ): Promise<readonly ExtentRun[]> {
    return touched(segments, pages, afterLsn);
  }

  async hash(content: ArrayBuffer): Promise<HashedExtent> {
    const hash = hashOf(content);
    return {
      hash,
      build: async (level) => chunkOf(content, hash ?? "", level),
      release: async () => content,
    };
  }

  async close(): Promise<void> {}
}
