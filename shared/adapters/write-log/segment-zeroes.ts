/*
 * Zeroes ahead of the append position, so that a record's write changes nothing of its file but the blocks' content: which segment gets
 * them next, and the writing in slices. segment-supply.ts calls it, one call at a time. docs/specs/embedded-log.md, "Room".
 */
import { FileStoreError, type VarveError } from "#shared/domain/errors.ts";
import type { BlockFile } from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { LogSetup } from "./log-options.ts";
import type { LogSegment } from "./segment-file.ts";
import type { SegmentSet } from "./segment-set.ts";

export interface ZeroesListener {
  /** A slice of zeroes was written where a group may be waiting to write. */
  slicePrepared(): void;
  /** Zeroing failed in a segment that holds records: what was stored there and not synced may be lost. */
  startedSegmentFailed(error: VarveError): void;
}

export class SegmentZeroes {
  readonly #setup: LogSetup;
  readonly #set: SegmentSet;
  readonly #listener: ZeroesListener;
  #slab: Slab | null = null;
  #stopped = false;

  constructor(setup: LogSetup, set: SegmentSet, listener: ZeroesListener) {
    this.#setup = setup;
    this.#set = set;
    this.#listener = listener;
  }

  /** A call under way ends after its slice. */
  stop(): void {
    this.#stopped = true;
  }

  /**
   * The first segment whose zeroes do not reach far enough ahead of the append position. While a file gets zeroes, each durable write into it
   * waits for the file system's journal, so one that was begun is finished, and none that is written to gets any, but for the log's first.
   */
  next(wantedBytes: number): LogSegment | null {
    let aheadBytes = 0;
    const { current, ahead } = this.#set;
    for (let index = -1; index < ahead.length; index += 1) {
      const segment = index < 0 ? current : ahead[index];
      if (segment === undefined) break;
      const from = index < 0 ? current.endOffset : 0;
      const prepared = segment.preparedBytes >= segment.sizeBytes;
      if (segment.unprepared || (!prepared && this.#isLate(segment))) continue;
      if (!prepared) {
        const enough = aheadBytes + segment.preparedBytes - from >= wantedBytes;
        const begun = index >= 0 && segment.preparedBytes > 0;
        return enough && !begun ? null : segment;
      }
      aheadBytes += segment.sizeBytes - from;
      if (aheadBytes >= wantedBytes) return null;
    }
    return null;
  }

  /** Writes zeroes up to `end`. A failure costs the preparation only, where the segment holds no records. */
  async write(segment: LogSegment, end: number): Promise<void> {
    this.#slab ??= this.#setup.store.allocateSlab(this.#setup.zeroSliceBytes);
    const slab = this.#slab;
    let file: BlockFile | null = null;
    try {
      file = await this.#setup.store.open(segment.path, { access: "direct" });
      while (segment.preparedBytes < end && !this.#stopped && !this.#isLate(segment))
        await this.#writeSlice(segment, file, slab);
      await file.sync();
    } catch (cause) {
      if (!(cause instanceof FileStoreError)) throw cause;
      segment.unprepared = true;
      if (segment.started) this.#listener.startedSegmentFailed(cause);
    } finally {
      segment.preparingEnd = 0;
      this.#listener.slicePrepared();
      if (file !== null) await file.close();
    }
  }

  /** It is written to, and not the first that is: too late for zeroes. */
  #isLate(segment: LogSegment): boolean {
    return segment.started && this.#set.begun > 0;
  }

  async #writeSlice(segment: LogSegment, file: BlockFile, slab: Slab): Promise<void> {
    const start = segment.preparedBytes;
    const length = Math.min(slab.bytes.byteLength, segment.sizeBytes - start);
    segment.preparingEnd = start + length;
    await file.write([{ slab, start: 0, length }], start);
    segment.preparingEnd = 0;
    segment.preparedBytes = Math.max(segment.preparedBytes, start + length);
    this.#listener.slicePrepared();
  }
}
