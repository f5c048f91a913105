/*
 * Bytes of segments, chunks and hot batches by frames: each fetched once for all who want it at the same time, checked,
 * decompressed on the thread pool, kept within the shared cache. Neighbouring frames that are missing are one GET.
 * point-source.ts asks; bucket-reader.ts gives the memory that fetches may take (its gate).
 */
import { chunkKey } from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { type ChunkHead, chunkFrames, chunkHeadBytes } from "#shared/formats/chunk-object.ts";
import { frameCoding, type ObjectFrame } from "#shared/formats/object-frame.ts";
import { type BadObject, isBadObject } from "#shared/formats/sealed-object.ts";
import { BoundedCache } from "./bounded-cache.ts";
import { openHead, readHead, readObject } from "./bucket-objects.ts";
import type { BucketReader } from "./bucket-reader.ts";
import { historyIncomplete, objectDamaged } from "./history-errors.ts";
import type { HotPlace } from "./hot-tail.ts";

/** A segment's record stream, as its footer describes it; the value of a map's range. */
export interface SegmentPlace {
  readonly kind: "segment";
  readonly key: string;
  readonly frames: readonly ObjectFrame[];
}

/** Checks and decompresses: on the thread pool, or on the spot where a simulation wants one order of things. */
export type FrameOpener = (stored: Buffer, frame: ObjectFrame) => Promise<Buffer | BadObject>;

type FramedObject = Pick<SegmentPlace, "key" | "frames">;

/** Whether a frame, by its number, stays in memory within the cache; else only while somebody reads it. */
export type KeepFrame = (number: number) => boolean;

const headBytes = 3 * 1024;
/** The largest chunk object: frames as they are, head and digest. */
const chunkObjectBytesMax = limits.extentBytes + 4096;
/** A hot batch that is at most so many entries and bytes on is read by going on, not by beginning again. */
const hotStepLsns = 64 * limits.batchEntriesMax;
const hotStepBytes = 1024 * 1024;

const zeroFrame = Buffer.alloc(limits.archiveFrameBytes);

export class FrameReader {
  private readonly reader: BucketReader;
  private readonly openFrame: FrameOpener;
  private readonly frames: BoundedCache<Buffer>;
  private readonly heads: BoundedCache<ChunkHead>;

  constructor(reader: BucketReader, openFrame: FrameOpener) {
    this.reader = reader;
    this.openFrame = openFrame;
    this.frames = new BoundedCache(reader.limits.frameCacheBytes);
    this.heads = new BoundedCache(reader.limits.headCacheBytes);
  }

  /** Frames of an object by number, ascending. Each promise has to be listened to. */
  segmentFrames(object: FramedObject, numbers: readonly number[], keep: KeepFrame): Promise<Buffer>[] {
    const promises = new Map<number, Promise<Buffer>>();
    let run: ObjectFrame[] = [];
    const flush = (): void => {
      if (run.length > 0) this.startRun(object.key, run, keep, promises);
      run = [];
    };
    for (const number of numbers) {
      const frame = object.frames[number] as ObjectFrame;
      const known = this.known(frameKey(object.key, number));
      if (known !== null) {
        promises.set(number, known);
      } else if (frame.coding === frameCoding.zero) {
        promises.set(number, Promise.resolve(zeroFrame));
      } else {
        if (!this.extendsRun(run, frame)) flush();
        run.push(frame);
      }
    }
    flush();
    return numbers.map((number) => promises.get(number) as Promise<Buffer>);
  }

  /** Frames of a chunk. Half of it or more: the whole object in one GET; else its head, if that is not known, then frames. */
  chunkFrames(name: string, numbers: readonly number[], keep: KeepFrame): Promise<Buffer>[] {
    const key = chunkKey(name);
    const missing = numbers.filter((number) => this.known(frameKey(key, number)) === null);
    if (missing.length >= chunkFrames / 2) {
      this.startWhole(name, keep);
    } else if (missing.length > 0) {
      const head = this.heads.get(name);
      if (head !== undefined) return this.segmentFrames({ key, frames: head.frames }, numbers, keep);
      const later = this.loadHead(name).then(({ frames }) =>
        this.segmentFrames({ key, frames }, numbers, keep),
      );
      return numbers.map((_, index) => later.then((promises) => promises[index] as Promise<Buffer>));
    }
    return numbers.map((number) => this.known(frameKey(key, number)) as Promise<Buffer>);
  }

  /**
   * Payloads of hot batches by number, ascending. Batches that stand close together are one reading of the log. Each promise
   * has to be listened to.
   */
  hotPayloads(place: HotPlace, batches: readonly number[]): Promise<Buffer>[] {
    const { firstLsns, starts } = place;
    const promises = new Map<number, Promise<Buffer>>();
    let run: number[] = [];
    let bytes = 0;
    const flush = (): void => {
      if (run.length > 0) this.startHotRun(place, run, bytes, promises);
      run = [];
      bytes = 0;
    };
    for (const batch of batches) {
      const known = this.known(hotKey(place, batch));
      if (known !== null) {
        promises.set(batch, known);
        continue;
      }
      const payloadBytes = (starts[batch + 1] as number) - (starts[batch] as number);
      const last = run.at(-1) ?? batch;
      const isFar =
        (firstLsns[batch] as number) - (firstLsns[last] as number) > hotStepLsns ||
        (starts[batch] as number) - (starts[last + 1] as number) > hotStepBytes;
      if (isFar || bytes + payloadBytes > limits.extentBytes) flush();
      run.push(batch);
      bytes += payloadBytes;
    }
    flush();
    return batches.map((batch) => promises.get(batch) as Promise<Buffer>);
  }

  statistics() {
    return { frames: this.frames.statistics(), heads: this.heads.statistics() };
  }

  clear(): void {
    this.frames.clear();
    this.heads.clear();
  }

  private known(key: string): Promise<Buffer> | null {
    const kept = this.frames.get(key);
    if (kept !== undefined) return Promise.resolve(kept);
    return this.frames.pending(key) ?? null;
  }

  private loadHead(name: string): Promise<ChunkHead> {
    return this.heads.load(name, () =>
      this.reader.gate.run("places", chunkHeadBytes, async () => ({
        value: await readHead(this.reader.store, name),
        bytes: headBytes,
      })),
    );
  }

  private extendsRun(run: readonly ObjectFrame[], frame: ObjectFrame): boolean {
    const first = run[0];
    const last = run.at(-1);
    if (first === undefined || last === undefined) return true;
    const isNext = last.objectOffset + last.storedBytes === frame.objectOffset;
    return isNext && frame.place + frame.rawBytes - first.place <= this.reader.limits.runBytes;
  }

  private startRun(
    key: string,
    run: readonly ObjectFrame[],
    keep: KeepFrame,
    promises: Map<number, Promise<Buffer>>,
  ): void {
    const start = run[0]?.objectOffset ?? 0;
    const last = run.at(-1) as ObjectFrame;
    const length = last.objectOffset + last.storedBytes - start;
    const rawBytes = run.reduce((sum, frame) => sum + frame.rawBytes, 0);
    const fetched = this.reader.gate.run("bytes", length + rawBytes, async () => {
      const stored = await readObject(this.reader.store, key, { start, length });
      return this.openAll(key, run, stored, start, keep);
    });
    for (const [index, frame] of run.entries()) {
      promises.set(
        frame.number,
        this.follow(frameKey(key, frame.number), fetched, index, keep(frame.number)),
      );
    }
  }

  private startWhole(name: string, keep: KeepFrame): void {
    const key = chunkKey(name);
    const fetched = this.reader.gate.run("bytes", chunkObjectBytesMax + limits.extentBytes, async () => {
      const object = await readObject(this.reader.store, key);
      const head = openHead(this.reader.store.place, name, object);
      if (object.length !== head.objectBytes) {
        const detail = `${object.length} bytes instead of ${head.objectBytes}`;
        throw objectDamaged(this.reader.store.place, key, "lengths", detail);
      }
      this.heads.put(name, { value: head, bytes: headBytes });
      return this.openAll(key, head.frames, object, 0, keep);
    });
    for (let number = 0; number < chunkFrames; number += 1) {
      const place = frameKey(key, number);
      if (this.known(place) !== null) continue;
      // Nobody may ask for this one: its failure is told to those who ask for others.
      this.follow(place, fetched, number, keep(number)).catch(() => undefined);
    }
  }

  /** All frames of a fetch; one that is bad is an error in its place and does not hurt the others. */
  private openAll(
    key: string,
    frames: readonly ObjectFrame[],
    stored: Buffer,
    storedStart: number,
    keep: KeepFrame,
  ): Promise<(Buffer | VarveError)[]> {
    return Promise.all(
      frames.map(async (frame) => {
        const at = frame.objectOffset - storedStart;
        const raw = await this.openFrame(stored.subarray(at, at + frame.storedBytes), frame);
        if (isBadObject(raw)) return objectDamaged(this.reader.store.place, key, raw.fault, raw.detail);
        // A frame stored as it is would keep the whole fetch in memory, for as long as the frame is kept.
        return keep(frame.number) && raw.buffer === stored.buffer ? Buffer.from(raw) : raw;
      }),
    );
  }

  private startHotRun(
    place: HotPlace,
    run: readonly number[],
    bytes: number,
    promises: Map<number, Promise<Buffer>>,
  ): void {
    const fetched = this.reader.gate.run("bytes", bytes, () => readHotPayloads(place, run));
    for (const [index, batch] of run.entries()) {
      promises.set(batch, this.follow(hotKey(place, batch), fetched, index, true));
    }
  }

  private follow(
    key: string,
    fetched: Promise<readonly (Buffer | VarveError)[]>,
    index: number,
    keep: boolean,
  ): Promise<Buffer> {
    const own = fetched.then((all) => {
      const value = all[index];
      if (value instanceof VarveError) throw value;
      return { value: value as Buffer, bytes: (value as Buffer).length };
    });
    return this.frames.follow(key, own, keep);
  }
}

async function readHotPayloads(place: HotPlace, run: readonly number[]): Promise<Buffer[]> {
  const { log, firstLsns, checksums } = place;
  const payloads: Buffer[] = [];
  let wanted = run[0] as number;
  for await (const batch of log.read(firstLsns[wanted] as number)) {
    if (batch.firstLsn < (firstLsns[wanted] as number)) continue;
    if (batch.firstLsn !== firstLsns[wanted] || batch.checksum !== checksums[wanted]) break;
    payloads.push(Buffer.from(batch.payload));
    if (payloads.length === run.length) return payloads;
    wanted = run[payloads.length] as number;
  }
  const lsn = firstLsns[wanted] as number;
  throw historyIncomplete(log.line, lsn, "the hot log does not have the batch that was there");
}

function frameKey(key: string, number: number): string {
  return `${key}#${number}`;
}

/** With the checksum: it chains over the whole line, so that nothing else can have this name. */
function hotKey({ log, firstLsns, checksums }: HotPlace, batch: number): string {
  return `${log.line}@${firstLsns[batch]}#${checksums[batch]}`;
}
