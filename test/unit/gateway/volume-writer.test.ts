/*
 * The volume writer against a log that is stepped by hand: who is answered when, what gathers, what back-pressure does.
 */
import { beforeEach, describe, expect, it } from "vitest";
import type { BatchDraft } from "#shared/domain/batch-draft.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { SlabPool } from "#shared/memory/slab-pool.ts";
import type { Completion } from "#shared/ports/block-export.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { Durability, LogState, LogWriter } from "#shared/ports/write-log.ts";
import { Overlay } from "../../../services/gateway/engine/overlay.ts";
import type { PendingBatch } from "../../../services/gateway/engine/pending-batch.ts";
import { VolumeWriter } from "../../../services/gateway/engine/volume-writer.ts";
import { admitEverything } from "../../tools/admit-everything.ts";

/** Queues what is appended; the test says when it is stored and durable. */
class SteppedLog implements LogWriter {
  batchPayloadBytesMax: number = limits.batchPayloadBytesMax;
  readonly appended: BatchDraft[] = [];
  readonly pumps: boolean[] = [];
  readonly syncs: { resolve: () => void; reject: (error: Error) => void }[] = [];
  refuse: VarveError | null = null;
  roomBytes = Number.MAX_SAFE_INTEGER;
  noMoreRoom: VarveError | null = null;
  private lastLsn = 0;

  append(draft: BatchDraft): void {
    if (this.refuse !== null) throw this.refuse;
    draft.firstLsn = this.lastLsn + 1;
    this.lastLsn += draft.entryCount;
    this.appended.push(draft);
  }
  pump(mayBlock: boolean): void {
    this.pumps.push(mayBlock);
  }
  sync(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.syncs.push({ resolve, reject });
    });
  }
  state(): LogState {
    return {
      line: "0".repeat(16),
      epoch: 1,
      oldestLsn: 1,
      lastLsn: this.lastLsn,
      storedLsn: 0,
      durableLsn: 0,
      diskBytes: 0,
      roomBytes: this.roomBytes,
      refusal: this.noMoreRoom,
    };
  }
  read(): AsyncIterable<never> {
    throw new Error("not asked for");
  }
  async release(): Promise<void> {}
  async close(): Promise<void> {}
}

class Answer implements Completion {
  answered = false;
  error: VarveError | null = null;
  complete(error: VarveError | null): void {
    expect(this.answered).toBe(false);
    this.answered = true;
    this.error = error;
  }
}

function slabOf(bytes: number): Slab {
  return { bytes: Buffer.alloc(bytes), address: 0 };
}

class CountingPool {
  lent = 0;
  slabsMax = 100;
  beyondMax = 0;
  acquire(bytes: number): Slab | null {
    return this.lend(bytes, this.slabsMax);
  }
  acquireBeyond(bytes: number): Slab | null {
    return this.lend(bytes, this.slabsMax + this.beyondMax);
  }
  private lend(bytes: number, most: number): Slab | null {
    if (this.lent >= most) return null;
    this.lent += 1;
    return slabOf(Math.ceil(bytes / 4096) * 4096);
  }
  release(): void {
    this.lent -= 1;
  }
}

let log: SteppedLog;
let pool: CountingPool;
let overlay: Overlay;
let durableBatches: PendingBatch[];
let refusal: VarveError | null;
const source = slabOf(64 * 1024);

function writerOf(durability: Durability): VolumeWriter {
  return new VolumeWriter({
    log,
    durability,
    overlay,
    pool: pool as unknown as SlabPool,
    admission: { ...admitEverything, refuse: () => refusal, takesOverwrites: false },
    holdsSpace: () => false,
    onDurable: (batch) => durableBatches.push(batch),
    onRoomReturned: () => undefined,
  });
}

function write(writer: VolumeWriter, offset: number, fua = false): Answer {
  const answer = new Answer();
  expect(writer.write(offset, source, 0, 4096, fua, answer)).toBe(true);
  return answer;
}

const microtasks = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

beforeEach(() => {
  log = new SteppedLog();
  pool = new CountingPool();
  overlay = new Overlay();
  durableBatches = [];
  refusal = null;
});

describe("a `write` volume", () => {
  it("answers only when the log says durable", () => {
    const writer = writerOf("write");
    const answer = write(writer, 0);
    writer.endOfInput(true);
    writer.stored(1);
    expect(answer.answered).toBe(false);
    expect(overlay.empty).toBe(true);
    writer.durable(1);
    expect(answer).toMatchObject({ answered: true, error: null });
    expect(overlay.empty).toBe(false);
    expect(durableBatches).toHaveLength(1);
  });

  it("appends a mark when there is room, refuses nothing for want of it, and says what refuses it for longer", async () => {
    const writer = writerOf("write");
    pool.slabsMax = 1;
    const answer = write(writer, 0);
    writer.endOfInput(false);
    expect(writer.appendValues([[5, "busy"]])).toBeNull();
    writer.durable(1);
    expect(answer.answered).toBe(true);
    pool.release();
    const marked = writer.appendValues([[5, "now"]]);
    writer.durable(2);
    expect(await marked).toBe(2);
    writer.stop(new VarveError("Gone", "Retry", "gone"));
    expect(() => writer.appendValues([[5, "late"]])).toThrow("gone");
  });

  it("appends a mark beyond the memory of writers, small whatever they write", async () => {
    const writer = writerOf("write");
    for (let round = 0; round < 20; round++) {
      write(writer, round * 65_536);
      writer.endOfInput(false);
      writer.durable(round + 1);
    }
    pool.slabsMax = pool.lent;
    expect(writer.write(0, source, 0, 4096, false, new Answer())).toBe(false);
    pool.beyondMax = 1;
    const marked = writer.appendValues([[5, "busy"]]);
    expect(log.appended.at(-1)?.slab.bytes.length).toBe(68 * 1024);
    writer.durable(21);
    expect(await marked).toBe(21);
    expect(writer.write(0, source, 0, 4096, false, new Answer())).toBe(false);
  });

  it("gathers while two batches are under way and sends the rest as one when a slot is free", () => {
    const writer = writerOf("write");
    for (let round = 0; round < 10; round++) {
      write(writer, round * 4096);
      writer.endOfInput(false);
    }
    expect(log.appended.map((draft) => draft.entryCount)).toEqual([1, 1]);
    writer.durable(1);
    expect(log.appended.map((draft) => draft.entryCount)).toEqual([1, 1, 8]);
  });

  it("lets the log block only for a lone batch of a lone client", () => {
    const writer = writerOf("write");
    write(writer, 0);
    writer.endOfInput(true);
    write(writer, 4096);
    writer.endOfInput(true);
    expect(log.pumps).toEqual([true, false]);
  });

  it("puts a reserved write behind what came before it", () => {
    const writer = writerOf("write");
    write(writer, 0);
    const slot = writer.reserveWrite(8192);
    expect(slot).not.toBeNull();
    write(writer, 4096);
    if (slot !== null) writer.writeReserved(slot, 8192, false, new Answer());
    write(writer, 16384);
    writer.endOfInput(false);
    expect(log.appended.map((draft) => [...draft.offsets])).toEqual([[0, 4096], [8192]]);
    writer.durable(2);
    writer.durable(3);
    expect(log.appended.map((draft) => [...draft.offsets])).toEqual([[0, 4096], [8192], [16384]]);
  });

  it("answers FLUSH at once, because answered is durable, but never from inside the call", async () => {
    const writer = writerOf("write");
    const answer = new Answer();
    writer.flush(answer);
    expect(answer.answered).toBe(false);
    await microtasks();
    expect(answer).toMatchObject({ answered: true, error: null });
    expect(log.syncs).toHaveLength(0);
  });
});

describe("a `flush` volume", () => {
  it("answers plain writes when stored, FUA when durable, and asks for a sync", () => {
    const writer = writerOf("flush");
    const plain = write(writer, 0);
    const fua = write(writer, 4096, true);
    writer.endOfInput(false);
    expect(log.syncs).toHaveLength(1);
    writer.stored(2);
    expect(plain.answered).toBe(true);
    expect(fua.answered).toBe(false);
    expect(overlay.empty).toBe(false);
    expect(durableBatches).toHaveLength(0);
    writer.durable(2);
    expect(fua.answered).toBe(true);
    expect(durableBatches).toHaveLength(1);
  });

  it("answers FLUSH when the log's sync is done, with EIO's error when it failed", async () => {
    const writer = writerOf("flush");
    const good = new Answer();
    const bad = new Answer();
    writer.flush(good);
    writer.flush(bad);
    log.syncs[0]?.resolve();
    log.syncs[1]?.reject(new VarveError("LogFailed", "Internal", "disk gone"));
    await microtasks();
    expect(good).toMatchObject({ answered: true, error: null });
    expect(bad.error?._tag).toBe("LogFailed");
  });

  it("asks for one sync when memory runs short", () => {
    const writer = writerOf("flush");
    write(writer, 0);
    writer.endOfInput(false);
    writer.stored(1);
    writer.relieve();
    writer.relieve();
    expect(log.syncs).toHaveLength(1);
  });
});

describe("what is refused", () => {
  it("an inadmissible write is answered with its error and reaches no log", async () => {
    const writer = writerOf("write");
    refusal = new VarveError("NoSpace", "Full", "no room");
    const answer = write(writer, 0);
    await microtasks();
    writer.endOfInput(false);
    expect(answer.error?.kind).toBe("Full");
    expect(log.appended).toHaveLength(0);
    expect(pool.lent).toBe(0);
  });

  it("a log that refuses the batch fails its requests and gives the slab back", async () => {
    const writer = writerOf("write");
    const answer = write(writer, 0);
    log.refuse = new VarveError("LogFull", "Full", "no room in the log");
    writer.endOfInput(false);
    await microtasks();
    expect(answer.error?._tag).toBe("LogFull");
    expect(pool.lent).toBe(0);
    expect(writer.busy).toBe(false);
  });

  it("without memory nothing is taken, and what was gathered goes to the log", () => {
    const writer = writerOf("write");
    pool.slabsMax = 1;
    let taken = 0;
    while (writer.write(taken * 4096, source, 0, 4096, false, new Answer())) taken += 1;
    expect(taken).toBeGreaterThan(1);
    expect(log.appended).toHaveLength(1);
    expect(writer.reserveWrite(4096)).toBeNull();
  });

  it("waits where the log is still making room ready, and says Full where it never will", async () => {
    const writer = writerOf("write");
    log.roomBytes = 8192;
    expect(writer.write(0, source, 0, 4096, false, new Answer())).toBe(false);
    expect(writer.takeWaitsForLog()).toBe(true);
    expect(writer.reserveWrite(65536)).toBeNull();
    expect(writer.takeWaitsForLog()).toBe(true);
    expect(writer.takeWaitsForLog()).toBe(false);
    log.noMoreRoom = new VarveError("LogFull", "Full", "the log reached its limit");
    const answer = write(writer, 0);
    await microtasks();
    expect(answer.error?._tag).toBe("LogFull");
    expect(pool.lent).toBe(0);
  });

  it("a large write is answered with Full, not left waiting, where the log is full for good", async () => {
    const writer = writerOf("write");
    log.roomBytes = 0;
    log.noMoreRoom = new VarveError("LogFull", "Full", "the log reached its limit");
    const slot = writer.reserveWrite(128 * 1024);
    expect(slot).not.toBeNull();
    const answer = new Answer();
    if (slot !== null) writer.writeReserved(slot, 0, false, answer);
    await microtasks();
    expect(answer.error?._tag).toBe("LogFull");
    expect(log.appended).toHaveLength(0);
    expect(pool.lent).toBe(0);
  });

  it("a log with small batches gets a long write in pieces that are nearly alike, and no draft that it can't take", () => {
    const writer = writerOf("write");
    log.batchPayloadBytesMax = 1_036_288;
    const lengths: number[] = [];
    for (let left = 4 * 1024 * 1024; left > 0; ) {
      const slot = writer.reserveWrite(left);
      if (slot === null) throw new Error("no memory");
      lengths.push(slot.length);
      left -= slot.length;
      writer.writeReserved(slot, 0, false, new Answer());
    }
    expect(lengths).toEqual([839_680, 839_680, 839_680, 839_680, 835_584]);
    expect(writer.reserveWrite(1_036_288)?.length).toBe(1_036_288);
    expect(writer.reserveWrite(1_036_289)?.length).toBe(520_192);
    log.batchPayloadBytesMax = 128 * 1024;
    for (let count = 0; count < 400; count += 1) write(writer, count * 4096);
    writer.endOfInput(false);
    for (const draft of log.appended.slice(5))
      expect(draft.payloadCapacityBytes).toBeLessThanOrEqual(128 * 1024);
    expect(log.appended.length).toBeGreaterThan(15);
  });

  it("log room promised to a reserved write is not promised twice", () => {
    const writer = writerOf("write");
    log.roomBytes = 200 * 1024;
    const slot = writer.reserveWrite(128 * 1024);
    expect(slot).not.toBeNull();
    expect(writer.reserveWrite(128 * 1024)).toBeNull();
    if (slot !== null) writer.cancelReserved(slot);
    expect(writer.reserveWrite(128 * 1024)).not.toBeNull();
  });

  it("after a stop every request fails and nothing is answered twice", async () => {
    const writer = writerOf("write");
    const first = write(writer, 0);
    writer.endOfInput(false);
    const open = write(writer, 4096);
    writer.stop(new VarveError("LogFailed", "Internal", "disk gone"));
    expect(first.error?._tag).toBe("LogFailed");
    await microtasks();
    expect(open.error?._tag).toBe("LogFailed");
    const later = write(writer, 8192);
    await microtasks();
    expect(later.error?._tag).toBe("LogFailed");
    const flush = new Answer();
    writer.flush(flush);
    await microtasks();
    expect(flush.error?._tag).toBe("LogFailed");
  });
});
