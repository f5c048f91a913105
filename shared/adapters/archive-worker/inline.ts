/*
 * The archive thread's twin without a thread: the same work on the caller's, a turn later. For tests and the simulator, where
 * every step must be in one order.
 */
import type { ExtentRun } from "#shared/domain/archive.ts";
import type {
  ArchiveWorker,
  BuiltChunk,
  BuiltPage,
  SealedSegment,
  SegmentRecords,
  SegmentTail,
} from "#shared/ports/archive-worker.ts";
import { CompressingTasks, hashOf, page, touched } from "./tasks.ts";

export class InlineArchiveWorker implements ArchiveWorker {
  readonly #tasks = new CompressingTasks();

  async seal(records: SegmentRecords, level: number): Promise<SealedSegment> {
    return this.#tasks.seal(records, level);
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

  async hash(memory: SharedArrayBuffer): Promise<string | null> {
    return hashOf(memory);
  }

  async chunk(memory: SharedArrayBuffer, hash: string, level: number): Promise<BuiltChunk> {
    return this.#tasks.chunk(memory, hash, level);
  }

  async close(): Promise<void> {}
}
