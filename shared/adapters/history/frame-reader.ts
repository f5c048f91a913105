/*
 * Bytes of segments, chunks and hot batches by frames: each fetched once for all who want it at the same time, checked,
 * decompressed on the thread pool, kept within the shared cache. Neighbouring frames that are missing are one GET.
 * point-source.ts asks; bucket-reader.ts gives the memory that fetches may take (its gate).
 */
import { chunkKey } from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import { type ChunkHead, chunkFrames, chunkHeadBytes } from "#shared/formats/chunk-object.ts";
import { frameCoding, type ObjectFrame } from "#shared/formats/object-frame.ts";
import { type BadObject, isBadObject } from "#shared/formats/sealed-object.ts";
import { BoundedCache } from "./bounded-cache.ts";
import { openHead, readHead, readObject } from "./bucket-objects.ts";
import type { BucketReader } from "./bucket-reader.ts";
import { historyIncomplete, objectDamaged } from "./history-errors.ts";
import type { HotPlace } from "./hot-tail.ts";
import { LentMemory } from "./lent-memory.ts";

/** A segment's record stream, as its footer describes it; the value of a map's range. */
export interface SegmentPlace {
  readonly kind: "segment";
  readonly key: string;
  readonly frames: readonly ObjectFrame[];
}

/** Checks and decompresses: on the thread pool, or on the spot where a simulation wants one order of things. */
export type FrameOpener = (stored: Buffer, frame: ObjectFrame) => Promise<Buffer | BadObject>;

/** A frame's bytes (or a hot payload) and the memory they stand in. */
interface HeldFrame {
  readonly bytes: Buffer;
  readonly memory: LentMemory;
}

/** A frame that is there or on its way, and what whoever reads it takes until then; null for zeroes, which stay. */
interface FoundFrame {
  readonly frame: Promise<{ readonly bytes: Buffer }>;
  readonly memory: LentMemory | null;
}

type FramedObject = Pick<SegmentPlace, "key" | "frames">;

/** Whether a frame, by its number, stays in memory within the cache; else only while somebody reads it. */
export type KeepFrame = (number: number) => boolean;

/** Takes what it wants of a frame (or a hot payload), by its number, at once: the bytes may be somebody else's afterwards. */
export type ReadFrame = (number: number, bytes: Buffer) => void;

const headBytes = 3 * 1024;
/** The largest chunk object: frames as they are, head and digest. */
const chunkObjectBytesMax = limits.extentBytes + 4096;
/** A hot batch that is at most so many entries and bytes on is read by going on, not by beginning again. */
const hotStepLsns = 64 * limits.batchEntriesMax;
const hotStepBytes = 1024 * 1024;

const zeroFrame: FoundFrame = {
  frame: Promise.resolve({ bytes: Buffer.alloc(limits.archiveFrameBytes) }),
  memory: null,
};

export class FrameReader {
  private readonly reader: BucketReader;
  private readonly openFrame: FrameOpener;
  private readonly frames: BoundedCache<HeldFrame>;
  private readonly heads: BoundedCache<ChunkHead>;
  /** Of frames that are being fetched: the memory of the whole fetch. */
  private readonly fetches = new Map<string, LentMemory>();

  constructor(reader: BucketReader, openFrame: FrameOpener) {
    this.reader = reader;
    this.openFrame = openFrame;
    this.frames = new BoundedCache(reader.limits.frameCacheBytes, ({ memory }) => memory.giveBack());
    this.heads = new BoundedCache(reader.limits.headCacheBytes);
  }

  /** Frames of an object by number, ascending. Each promise (`read` has seen the frame) has to be listened to. */
  segmentFrames(
    object: FramedObject,
    numbers: readonly number[],
    keep: KeepFrame,
    read: ReadFrame,
  ): Promise<void>[] {
    let run: ObjectFrame[] = [];
    const flush = (): void => {
      if (run.length > 0) this.startRun(object.key, run, keep);
      run = [];
    };
    const reads = new Map<number, Promise<void>>();
    const wanted: number[] = [];
    for (const number of numbers) {
      const frame = object.frames[number] as ObjectFrame;
      const found = frame.coding === frameCoding.zero ? zeroFrame : this.find(frameKey(object.key, number));
      if (found !== null) {
        reads.set(number, lend(found, number, read));
      } else {
        if (!this.extendsRun(run, frame)) flush();
        run.push(frame);
        wanted.push(number);
      }
    }
    flush();
    for (const number of wanted)
      reads.set(number, this.lendFetched(frameKey(object.key, number), number, read));
    return numbers.map((number) => reads.get(number) as Promise<void>);
  }

  /** Frames of a chunk. Half of it or more: the whole object in one GET; else its head, if that is not known, then frames. */
  chunkFrames(name: string, numbers: readonly number[], keep: KeepFrame, read: ReadFrame): Promise<void>[] {
    const key = chunkKey(name);
    const missing = numbers.filter((number) => this.find(frameKey(key, number)) === null);
    if (missing.length >= chunkFrames / 2) {
      this.startWhole(name, keep);
    } else if (missing.length > 0) {
      const head = this.heads.get(name);
      if (head !== undefined) return this.segmentFrames({ key, frames: head.frames }, numbers, keep, read);
      const later = this.loadHead(name).then(({ frames }) =>
        this.segmentFrames({ key, frames }, numbers, keep, read),
      );
      return numbers.map((_, index) => later.then((promises) => promises[index] as Promise<void>));
    }
    return numbers.map((number) => this.lendFetched(frameKey(key, number), number, read));
  }

  /**
   * Payloads of hot batches by number, ascending. Batches that stand close together are one reading of the log. Each promise
   * has to be listened to.
   */
  hotPayloads(place: HotPlace, batches: readonly number[], read: ReadFrame): Promise<void>[] {
    const { firstLsns, starts } = place;
    const reads = new Map<number, Promise<void>>();
    const wanted: number[] = [];
    let run: number[] = [];
    let bytes = 0;
    const flush = (): void => {
      if (run.length > 0) this.startHotRun(place, run, bytes);
      run = [];
      bytes = 0;
    };
    for (const batch of batches) {
      const found = this.find(hotKey(place, batch));
      if (found !== null) {
        reads.set(batch, lend(found, batch, read));
        continue;
      }
      const payloadBytes = (starts[batch + 1] as number) - (starts[batch] as number);
      const last = run.at(-1) ?? batch;
      const isFar =
        (firstLsns[batch] as number) - (firstLsns[last] as number) > hotStepLsns ||
        (starts[batch] as number) - (starts[last + 1] as number) > hotStepBytes;
      if (isFar || bytes + payloadBytes > limits.extentBytes) flush();
      run.push(batch);
      wanted.push(batch);
      bytes += payloadBytes;
    }
    flush();
    for (const batch of wanted) reads.set(batch, this.lendFetched(hotKey(place, batch), batch, read));
    return batches.map((batch) => reads.get(batch) as Promise<void>);
  }

  statistics() {
    return { frames: this.frames.statistics(), heads: this.heads.statistics() };
  }

  clear(): void {
    this.frames.clear();
    this.heads.clear();
  }

  private find(place: string): FoundFrame | null {
    const kept = this.frames.get(place);
    if (kept !== undefined) return { frame: Promise.resolve(kept), memory: kept.memory };
    const frame = this.frames.pending(place);
    return frame === undefined ? null : { frame, memory: this.fetches.get(place) as LentMemory };
  }

  /** Of a frame whose fetch has just begun, or that was found to be there before it did. */
  private lendFetched(place: string, number: number, read: ReadFrame): Promise<void> {
    const found = this.find(place);
    invariant(found !== null, "what was asked for is on its way");
    return lend(found, number, read);
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

  private startRun(key: string, run: readonly ObjectFrame[], keep: KeepFrame): void {
    const start = run[0]?.objectOffset ?? 0;
    const last = run.at(-1) as ObjectFrame;
    const length = last.objectOffset + last.storedBytes - start;
    const rawBytes = run.reduce((sum, frame) => sum + frame.rawBytes, 0);
    const places = run.map(({ number }) => ({ place: frameKey(key, number), keep: keep(number) }));
    this.start(places, length + rawBytes, async (memory) => {
      const stored = await readObject(this.reader.store, key, { start, length });
      return await this.openAll(key, run, stored, start, keep, memory);
    });
  }

  private startWhole(name: string, keep: KeepFrame): void {
    const key = chunkKey(name);
    const places = Array.from({ length: chunkFrames }, (_, number) => ({
      place: frameKey(key, number),
      keep: keep(number),
    }));
    this.start(places, chunkObjectBytesMax + limits.extentBytes, async (memory) => {
      const object = await readObject(this.reader.store, key);
      const head = openHead(this.reader.store.place, name, object);
      if (object.length !== head.objectBytes) {
        const detail = `${object.length} bytes instead of ${head.objectBytes}`;
        throw objectDamaged(this.reader.store.place, key, "lengths", detail);
      }
      this.heads.put(name, { value: head, bytes: headBytes });
      return await this.openAll(key, head.frames, object, 0, keep, memory);
    });
  }

  private startHotRun(place: HotPlace, run: readonly number[], bytes: number): void {
    const places = run.map((batch) => ({ place: hotKey(place, batch), keep: true }));
    this.start(places, bytes, async (memory) =>
      (await readHotPayloads(place, run)).map((payload) => keptFrame(payload, memory)),
    );
  }

  /**
   * One fetch of what belongs at these places, in their order. Whoever asks for one of them meanwhile takes the memory of it all; from
   * when all are there nobody finds them by their fetch any more.
   */
  private start(
    places: readonly { readonly place: string; readonly keep: boolean }[],
    bytes: number,
    fetch: (memory: LentMemory) => Promise<readonly (HeldFrame | VarveError)[]>,
  ): void {
    const memory = new LentMemory();
    const fetched = this.reader.gate.run("bytes", bytes, () => fetch(memory));
    const followed: Promise<HeldFrame>[] = [];
    const own: string[] = [];
    for (const [index, { place, keep }] of places.entries()) {
      if (this.find(place) !== null) continue;
      const frame = fetched.then((all) => {
        const value = all[index];
        if (value instanceof VarveError) throw value;
        return { value: value as HeldFrame, bytes: (value as HeldFrame).bytes.length };
      });
      this.fetches.set(place, memory);
      own.push(place);
      followed.push(this.frames.follow(place, frame, keep));
    }
    // Nobody may ask for some: the failure is told to those who ask for others.
    void Promise.allSettled(followed).then(() => {
      for (const place of own) if (this.fetches.get(place) === memory) this.fetches.delete(place);
      memory.giveBack();
    });
  }

  /** All frames of a fetch; one that is bad is an error in its place and does not hurt the others. */
  private async openAll(
    key: string,
    frames: readonly ObjectFrame[],
    stored: Buffer,
    storedStart: number,
    keep: KeepFrame,
    memory: LentMemory,
  ): Promise<(HeldFrame | VarveError)[]> {
    const opened = await Promise.allSettled(
      frames.map(async (frame) => {
        const at = frame.objectOffset - storedStart;
        const raw = await this.openFrame(stored.subarray(at, at + frame.storedBytes), frame);
        if (isBadObject(raw)) return objectDamaged(this.reader.store.place, key, raw.fault, raw.detail);
        const isStored = raw.buffer === stored.buffer;
        // What is stored as it is goes with the fetch.
        if (keep(frame.number)) return keptFrame(isStored ? ownCopy(raw) : raw, memory);
        if (!isStored) memory.own(raw);
        return { bytes: raw, memory };
      }),
    );
    // Only now: threads read what is stored until the last frame is open.
    memory.own(stored);
    return opened.map((frame) => {
      if (frame.status === "rejected") throw frame.reason;
      return frame.value;
    });
  }
}

/** Its memory is the cache's, and that of the fetch for as long as somebody may read what it brought. */
function keptFrame(bytes: Buffer, fetch: LentMemory): HeldFrame {
  const memory = new LentMemory();
  memory.own(bytes);
  fetch.hold(memory);
  return { bytes, memory };
}

function ownCopy(bytes: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(copy);
  return copy;
}

async function lend({ frame, memory }: FoundFrame, number: number, read: ReadFrame): Promise<void> {
  memory?.take();
  try {
    read(number, (await frame).bytes);
  } finally {
    memory?.giveBack();
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
