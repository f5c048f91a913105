/*
 * One attempt to copy an image from one source (fill-source.ts) into a file: ranges that workers take one after the other, pieces under a
 * rate, patience with a source that falls silent. Made by replica-fill.ts, which installs the file when the copy is whole.
 */
import { toVarveError, type VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { BlockFile, FileStore } from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { type FillSource, type FillStart, fillStopped, noRoom } from "./fill-source.ts";
import { withSlabs } from "./image-files.ts";

export interface FillCopyOptions {
  readonly source: FillSource;
  readonly file: BlockFile;
  readonly store: FileStore;
  readonly clock: Clock;
  readonly roomBytes: () => number;
  /** Bytes a second at most; null: as fast as it goes. */
  readonly bytesPerSecond: number | null;
  readonly onChange: () => void;
  readonly signal: AbortSignal;
}

interface CopyRange {
  offset: number;
  readonly end: number;
}

const againMs = 200;
const idleMs = 10;
/** Zeroes are looked for in pieces of this size: a hole that is shorter saves less than it costs. */
const zeroBytes = 64 * 1024;
const zeroes = Buffer.alloc(zeroBytes);

export class FillCopy {
  readonly #options: FillCopyOptions;
  readonly #returned: CopyRange[] = [];
  readonly #givers = new Set<string>();
  #start: FillStart | null = null;
  #nextOffset = 0;
  #doneBytes = 0;
  #copiedBytes = 0;
  #begunLsn = 0;
  #progressAtMs = 0;
  #paceAtMs = 0;
  #failure: VarveError | null = null;

  constructor(options: FillCopyOptions) {
    this.#options = options;
  }

  /** The source has said where it begins. */
  get isCopying(): boolean {
    return this.#start !== null;
  }

  get copiedBytes(): number {
    return this.#copiedBytes;
  }

  /** Greatest LSN of which parts may be in the copy. */
  get begunLsn(): number {
    return this.#begunLsn;
  }

  /** For the operator. */
  get progress(): string {
    if (this.#start === null) return `asks ${this.#options.source.name}`;
    const { sizeBytes } = this.#start;
    const percent = Math.floor((100 * this.#doneBytes) / Math.max(1, sizeBytes));
    return `${percent} % copied from ${[...this.#givers].sort().join(", ") || "nobody yet"}`;
  }

  /** Resolves when everything is in the file, which is not synced yet. Rejects when it can't go on; the file is empty then. */
  async run(): Promise<FillStart> {
    const { source, file } = this.#options;
    try {
      const start = await source.begin();
      this.#start = start;
      await file.truncate(0);
      await file.truncate(start.sizeBytes);
      try {
        await this.#copyAll(start);
      } catch (cause) {
        // Its room is wanted elsewhere until the next attempt.
        await file.truncate(0).catch(() => undefined);
        throw cause;
      }
      return start;
    } finally {
      await source.end();
    }
  }

  async #copyAll(start: FillStart): Promise<void> {
    const { source, store, clock } = this.#options;
    const { workers, pieceBytesMax } = source;
    this.#progressAtMs = clock.monotonicMs();
    await withSlabs(store, workers.length, pieceBytesMax, async (slabs) => {
      await Promise.all(
        workers.map(async (worker, index) => this.#work(worker, slabs[index] as Slab, start)),
      );
    });
    if (this.#failure !== null) throw this.#failure;
  }

  /** One after the other from one worker's source, until everything is there. Never rejects. */
  async #work(worker: string, slab: Slab, start: FillStart): Promise<void> {
    const { file, clock, onChange, signal } = this.#options;
    while (this.#failure === null && this.#doneBytes < start.sizeBytes) {
      const range = this.#takeRange(start.sizeBytes);
      if (range === null) {
        // Another worker may have to give its range back.
        await this.#pause(idleMs);
        continue;
      }
      const from = range.offset;
      try {
        while (range.offset < range.end && this.#failure === null && !signal.aborted) {
          const bytes = await this.#copyPiece(worker, range, slab);
          range.offset += bytes;
          this.#doneBytes += bytes;
          this.#progressAtMs = clock.monotonicMs();
        }
        await file.writeBack(from, range.end - from).catch((cause: unknown) => this.#fail(cause));
        onChange();
      } catch (cause) {
        this.#returned.push(range);
        const { kind } = toVarveError(cause, "copy");
        const isFinal = kind === "Corrupt" || kind === "Invalid" || kind === "Full";
        const isLate = clock.monotonicMs() - this.#progressAtMs > limits.replicaFillPatienceMs;
        if (isFinal || isLate) this.#fail(cause);
        await this.#pause(againMs);
      }
      if (signal.aborted) this.#fail(fillStopped());
    }
  }

  #takeRange(sizeBytes: number): CopyRange | null {
    const returned = this.#returned.pop();
    if (returned !== undefined) return returned;
    if (this.#nextOffset >= sizeBytes) return null;
    const offset = this.#nextOffset;
    this.#nextOffset = Math.min(sizeBytes, offset + limits.replicaCopyRangeBytes);
    return { offset, end: this.#nextOffset };
  }

  /** Bytes of the range that are done by it. What this node itself can't do fails the copy; anything else is the source's. */
  async #copyPiece(worker: string, { offset, end }: CopyRange, slab: Slab): Promise<number> {
    const { source, roomBytes } = this.#options;
    const piece = await source.read(worker, offset, end - offset, slab);
    const { skippedBytes, dataBytes, begunLsn } = piece;
    if (dataBytes > 0) {
      try {
        // What a source could not tell beforehand.
        if (dataBytes > roomBytes()) throw noRoom(dataBytes, roomBytes());
        await this.#write(slab, dataBytes, offset + skippedBytes);
      } catch (cause) {
        this.#fail(cause);
        throw cause;
      }
      await this.#pace(dataBytes);
    }
    this.#begunLsn = Math.max(this.#begunLsn, begunLsn);
    this.#copiedBytes += dataBytes;
    this.#givers.add(worker);
    return skippedBytes + dataBytes;
  }

  /** Zeroes stay holes. */
  async #write(slab: Slab, dataBytes: number, offset: number): Promise<void> {
    const { file } = this.#options;
    const put = async (start: number, end: number): Promise<void> => {
      if (end > start) await file.write([{ slab, start, length: end - start }], offset + start);
    };
    let start = 0;
    for (let at = 0; at < dataBytes; at += zeroBytes) {
      const end = Math.min(dataBytes, at + zeroBytes);
      if (slab.bytes.compare(zeroes, 0, end - at, at, end) !== 0) continue;
      await put(start, at);
      start = end;
    }
    await put(start, dataBytes);
  }

  #fail(cause: unknown): void {
    this.#failure ??= toVarveError(cause, "fill the replica");
  }

  async #pace(bytes: number): Promise<void> {
    const { clock, bytesPerSecond } = this.#options;
    if (bytesPerSecond === null) return;
    const nowMs = clock.monotonicMs();
    this.#paceAtMs = Math.max(this.#paceAtMs, nowMs) + (1000 * bytes) / bytesPerSecond;
    await this.#pause(this.#paceAtMs - nowMs);
  }

  async #pause(ms: number): Promise<void> {
    const { clock, signal } = this.#options;
    if (signal.aborted) this.#fail(fillStopped());
    await new Promise<void>((resolve) => {
      const done = (): void => {
        timer.cancel();
        signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = clock.after(ms, done);
      signal.addEventListener("abort", done);
    });
  }
}
