// What the write-log suites share: batches with recognisable bytes, a listener that remembers and checks the order of what
// it is told, and reading a log back as plain values. Callers: write-log.contract.ts and test/unit/write-log.
import { expect } from "vitest";
import { type Batch, lastLsnOf } from "#shared/domain/batch.ts";
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import type { Entry } from "#shared/domain/entry.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { LogListener, LogWriter } from "#shared/ports/write-log.ts";

export type Allocate = (bytes: number) => Slab;

/** Bytes that tell where they belong: no two writes of a test look alike. */
export function patternByte(seed: number, index: number): number {
  return (seed * 31 + index * 7 + (index >>> 8)) & 0xff;
}

/** A batch of one write of `length` bytes, filled by `seed`. */
export function writeDraft(
  allocate: Allocate,
  seed: number,
  length: number,
  offset = seed * 4096,
): BatchDraft<Slab> {
  const slabBytes = limits.batchHeaderBytesMax + Math.max(1, Math.ceil(length / 4096)) * 4096;
  const draft = new BatchDraft(allocate(slabBytes));
  const start = draft.addWrite(offset, length);
  for (let index = 0; index < length; index += 1) draft.slab.bytes[start + index] = patternByte(seed, index);
  return draft;
}

export class RecordingListener implements LogListener {
  storedLsn = 0;
  durableLsn = 0;
  error: VarveError | null = null;
  readonly calls: string[] = [];
  /** Set while a test is inside append(), or pump(false): no call may come then. */
  inside = false;
  #roomWaiting: (() => void)[] = [];
  #waiting: { lsn: number; what: "stored" | "durable"; resolve: () => void }[] = [];

  stored(lsn: number): void {
    expect(this.inside).toBe(false);
    expect(lsn).toBeGreaterThan(this.storedLsn);
    this.storedLsn = lsn;
    this.calls.push(`stored ${lsn}`);
    this.#wake();
  }

  durable(lsn: number): void {
    expect(this.inside).toBe(false);
    expect(lsn).toBeGreaterThan(this.durableLsn);
    this.durableLsn = lsn;
    this.storedLsn = Math.max(this.storedLsn, lsn);
    this.calls.push(`durable ${lsn}`);
    this.#wake();
  }

  room(): void {
    this.calls.push("room");
    const waiting = this.#roomWaiting;
    this.#roomWaiting = [];
    for (const resolve of waiting) resolve();
  }

  untilRoom(): Promise<void> {
    return new Promise((resolve) => {
      this.#roomWaiting.push(resolve);
    });
  }

  halted(error: VarveError): void {
    expect(this.error).toBeNull();
    this.error = error;
    this.calls.push(`halted ${error.kind}`);
    this.#wake();
  }

  async until(what: "stored" | "durable", lsn: number): Promise<void> {
    if (this.#reached(what, lsn)) return;
    await new Promise<void>((resolve) => {
      this.#waiting.push({ lsn, what, resolve });
    });
    if (this.error !== null && !this.#reached(what, lsn)) throw this.error;
  }

  #reached(what: "stored" | "durable", lsn: number): boolean {
    return (what === "stored" ? this.storedLsn : this.durableLsn) >= lsn;
  }

  #wake(): void {
    const ready = this.#waiting.filter(({ what, lsn }) => this.error !== null || this.#reached(what, lsn));
    this.#waiting = this.#waiting.filter((waiter) => !ready.includes(waiter));
    for (const waiter of ready) waiter.resolve();
  }
}

/** Appends and pumps, checking that nobody is told anything meanwhile, but by a pump that may block. */
export function appendNow(
  writer: LogWriter,
  listener: RecordingListener,
  draft: BatchDraft,
  mayBlock = false,
): BatchDraft {
  listener.inside = true;
  try {
    writer.append(draft);
    listener.inside = !mayBlock;
    writer.pump(mayBlock);
  } finally {
    listener.inside = false;
  }
  return draft;
}

/** The same by somebody who waits while room is being made ready. */
export async function appendWhenRoom(
  writer: LogWriter,
  listener: RecordingListener,
  draft: BatchDraft,
  mayBlock = false,
): Promise<BatchDraft> {
  for (;;) {
    try {
      return appendNow(writer, listener, draft, mayBlock);
    } catch (error) {
      if ((error as VarveError).kind !== "Retry") throw error;
      await listener.untilRoom();
    }
  }
}

/** A batch without views of memory that will be reused. */
export interface PlainBatch {
  readonly firstLsn: number;
  readonly lastLsn: number;
  readonly epoch: number;
  readonly line: string;
  readonly entries: readonly Entry[];
  readonly payload: Buffer;
}

export function plain(batch: Batch): PlainBatch {
  const { firstLsn, epoch, line, entries } = batch;
  return { firstLsn, lastLsn: lastLsnOf(batch), epoch, line, entries, payload: Buffer.from(batch.payload) };
}

export async function readAll(writer: LogWriter, fromLsn: number): Promise<PlainBatch[]> {
  const batches: PlainBatch[] = [];
  for await (const batch of writer.read(fromLsn)) batches.push(plain(batch));
  return batches;
}

/** The batch is the one write that writeDraft(seed, length) made. */
export function expectWrite(batch: PlainBatch | undefined, seed: number, length: number): void {
  expect(batch?.entries).toEqual([{ kind: "write", offset: seed * 4096, length, payloadStart: 0 }]);
  const expected = Buffer.alloc(length);
  for (let index = 0; index < length; index += 1) expected[index] = patternByte(seed, index);
  expect(batch?.payload.equals(expected)).toBe(true);
}
