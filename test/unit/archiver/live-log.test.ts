// Segments that fill from memory: what they hold is what the log holds, in order and without a hole, and they let go where there
// is no room, without keeping anybody's slot.
import { describe, expect, it } from "vitest";
import type { BatchDraft } from "#shared/domain/batch-draft.ts";
import { entryKind } from "#shared/domain/entry.ts";
import type { GatheredLog } from "../../../services/archiver/engine/gathered-log.ts";
import { LiveLog } from "../../../services/archiver/engine/live-log.ts";
import { WorkSlots } from "../../../services/archiver/engine/work-slots.ts";
import { type MadeBatch, MadeLog } from "../../tools/made-log.ts";

const line = "0f1e2d3c4b5a6978";
const owner = { volumeId: "00000000000000a1", line, archiverEpoch: 1 };
const wholeBytes = 40_000;

function setUp(slots: number) {
  const log = new MadeLog(line);
  const liveSlots = new WorkSlots(slots);
  const parts = { liveSlots, segmentSlots: new WorkSlots(1) };
  const live = new LiveLog({ parts, owner, isWhole: (gathered) => gathered.recordBytes >= wholeBytes });
  const batches: MadeBatch[] = [];
  /** One batch of 12 KiB of records, two entries. */
  const append = (begins = true): MadeBatch => {
    const bytes = Buffer.alloc(8000, batches.length + 1);
    const batch = log.batch(
      [
        { kind: "write", offset: 0, bytes },
        { kind: "mark", name: "m" },
      ],
      1,
    );
    batches.push(batch);
    live.follow(draftOf(batch), begins);
    return batch;
  };
  return { live, liveSlots, batches, append };
}

function draftOf(batch: MadeBatch): BatchDraft {
  const { firstLsn, previousChecksum, checksum, record, entries } = batch;
  const kinds = entries.map(({ kind }) => entryKind[kind]);
  const values = new Map<number, string>([[1, "m"]]);
  const slab = { bytes: Buffer.concat([record, Buffer.alloc(4096, 0xee)]), address: 0 };
  const facts = { firstLsn, previousChecksum, checksum, kinds, values, slab };
  return { ...facts, entryCount: kinds.length, recordBytes: record.length } as unknown as BatchDraft;
}

function bytesOf(gathered: GatheredLog | null): Buffer {
  if (gathered === null) throw new Error("nothing was taken");
  const { records, recordBytes } = gathered.take();
  return Buffer.from(Buffer.from(records, 0, recordBytes));
}

describe("segments that fill from memory", () => {
  it("hold the log's records in order, one segment after the other", () => {
    const { live, batches, append } = setUp(3);
    for (let count = 0; count < 7; count += 1) append();
    expect(live.firstLsn).toBe(1);
    expect(live.isWholeAt(1)).toBe(true);
    expect(live.isWholeAt(3)).toBe(false);
    expect(live.take(3)).toBeNull();
    const first = bytesOf(live.take(1));
    expect(first.equals(Buffer.concat(batches.slice(0, 4).map(({ record }) => record)))).toBe(true);
    expect(live.firstLsn).toBe(9);
    expect(live.isWholeAt(9)).toBe(false);
    const rest = bytesOf(live.take(9));
    expect(rest.equals(Buffer.concat(batches.slice(4).map(({ record }) => record)))).toBe(true);
    expect(live.firstLsn).toBe(Number.POSITIVE_INFINITY);
  });

  it("begin only where they are told to, and go on without being told", () => {
    const { live, append } = setUp(1);
    append(false);
    expect(live.firstLsn).toBe(Number.POSITIVE_INFINITY);
    append(true);
    append(false);
    expect(live.firstLsn).toBe(3);
    expect(live.take(3)?.nextLsn).toBe(7);
  });

  it("without a slot let go of what comes, never with a hole, and begin again when one is free", () => {
    const { live, append, batches } = setUp(1);
    for (let count = 0; count < 6; count += 1) append();
    // The first is whole after four batches; the fifth and sixth found no slot.
    expect(live.take(1)?.nextLsn).toBe(9);
    expect(live.firstLsn).toBe(Number.POSITIVE_INFINITY);
    const seventh = append();
    expect(live.firstLsn).toBe(seventh.firstLsn);
    expect(bytesOf(live.take(13)).equals(batches[6]?.record ?? Buffer.alloc(0))).toBe(true);
  });

  it("give every slot back", () => {
    const { live, liveSlots, append } = setUp(2);
    for (let count = 0; count < 6; count += 1) append();
    expect(liveSlots.takeNow()).toBeNull();
    live.clear();
    expect(live.firstLsn).toBe(Number.POSITIVE_INFINITY);
    expect(liveSlots.takeNow()).not.toBeNull();
    expect(liveSlots.takeNow()).not.toBeNull();
    expect(liveSlots.takeNow()).toBeNull();
  });

  it("say Corrupt where a batch does not continue the chain", () => {
    const { live, batches, append } = setUp(1);
    append();
    const broken = draftOf(batches[0] as MadeBatch);
    Object.assign(broken, { firstLsn: 3, previousChecksum: 5n });
    expect(() => live.follow(broken, true)).toThrow(expect.objectContaining({ kind: "Corrupt" }));
  });
});
