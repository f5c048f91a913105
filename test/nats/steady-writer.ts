// Somebody who writes without pause, and what must be true of the log afterwards: every write that was told durable is in it
// once, in order, with its bytes; what was not told may be there or not. Callers: test/nats.
import { expect } from "vitest";
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { limits } from "#shared/domain/limits.ts";
import type { FollowFrom, LogFollower } from "#shared/ports/log-follower.ts";
import type { LogWriter } from "#shared/ports/write-log.ts";
import type { RecordingListener } from "../contract/write-log-drafts.ts";
import { allocate } from "./jetstream-house.ts";

export const fromBegin: FollowFrom = { line: "", appliedLsn: 0, checksum: 0n, sequence: 0 };

export class SteadyWriter {
  readonly id: number;
  readonly #writer: LogWriter;
  readonly #listener: RecordingListener;
  readonly #drafts: BatchDraft[] = [];
  readonly #bytes: number;

  constructor(id: number, writer: LogWriter, listener: RecordingListener, bytes = 6000) {
    this.id = id;
    this.#writer = writer;
    this.#listener = listener;
    this.#bytes = bytes;
  }

  get count(): number {
    return this.#drafts.length;
  }

  /** Writes that were told durable. */
  get told(): number {
    return this.#drafts.filter((draft) => draft.lastLsn <= this.#listener.durableLsn).length;
  }

  /** Where write `index` goes, so that the log tells whose it is. */
  offsetOf(index: number): number {
    return this.id * 2 ** 40 + index * 2 ** 20;
  }

  /** Appends a few at once; false where the writer's time is over. */
  burst(count: number): boolean {
    try {
      for (let each = 0; each < count; each += 1) {
        const index = this.#drafts.length;
        const slabBytes = limits.batchHeaderBytesMax + Math.ceil(this.#bytes / 4096) * 4096;
        const draft = new BatchDraft(allocate(slabBytes));
        const start = draft.addWrite(this.offsetOf(index), this.#bytes);
        draft.slab.bytes.fill(fillOf(this.id, index), start, start + this.#bytes);
        this.#writer.append(draft);
        this.#drafts.push(draft);
      }
      this.#writer.pump(false);
      return true;
    } catch {
      return false;
    }
  }

  /** Keeps up to `ahead` writes under way until `isOver`. */
  async run(isOver: () => boolean, ahead = 40): Promise<void> {
    while (!isOver() && this.#listener.error === null) {
      const underWay = this.#drafts.length - this.told;
      if (underWay < ahead && !this.burst(Math.min(8, ahead - underWay))) return;
      await new Promise((resolve) => {
        setTimeout(resolve, 2);
      });
    }
  }

  /** What was told durable, as [offset, fill] in order. */
  promised(): readonly (readonly [number, number])[] {
    return this.#drafts
      .slice(0, this.told)
      .map((_, index) => [this.offsetOf(index), fillOf(this.id, index)] as const);
  }
}

function fillOf(id: number, index: number): number {
  return (id * 57 + index * 3 + 1) & 0xff;
}

export interface FoundLog {
  readonly writes: readonly (readonly [number, number])[];
  readonly lastLsn: number;
  readonly epochs: readonly number[];
}

/** Reads the whole log as a follower does, and checks that each write has its bytes. */
export async function readLog(follower: LogFollower): Promise<FoundLog> {
  const end = await follower.end();
  if (end === null) throw new Error("there is no log");
  const writes: (readonly [number, number])[] = [];
  const epochs: number[] = [];
  let lastLsn = 0;
  for await (const { batch } of follower.follow(fromBegin, new AbortController().signal)) {
    expect(batch.firstLsn).toBe(lastLsn + 1);
    lastLsn = batch.firstLsn + batch.entries.length - 1;
    if (epochs.at(-1) !== batch.epoch) epochs.push(batch.epoch);
    for (const entry of batch.entries) {
      if (entry.kind !== "write") continue;
      const bytes = Buffer.from(batch.payload).subarray(
        entry.payloadStart,
        entry.payloadStart + entry.length,
      );
      const fill = bytes[0] ?? -1;
      expect(bytes.equals(Buffer.alloc(entry.length, fill))).toBe(true);
      writes.push([entry.offset, fill]);
    }
    if (lastLsn >= end.lastLsn) break;
  }
  return { writes, lastLsn, epochs };
}

/** Each writer's promises are in the log once and in order; nothing is there twice. */
export function expectPromises(found: FoundLog, writers: readonly SteadyWriter[]): void {
  expect(new Set(found.writes.map(([offset]) => offset)).size).toBe(found.writes.length);
  for (const writer of writers) {
    const own = found.writes.filter(([offset]) => Math.floor(offset / 2 ** 40) === writer.id);
    const promised = writer.promised();
    expect(own.slice(0, promised.length)).toEqual(promised);
    expect(own.map(([offset]) => offset)).toEqual(own.map((_, index) => writer.offsetOf(index)));
  }
}
