// Short reads of one round of input in one message: each gets its own bytes or is told to ask alone; nothing is held back, and nothing
// that a node says can put bytes where they don't belong. The node is played on a memory bus.
import { describe, expect, test } from "vitest";
import { MemoryMessageBus } from "#shared/adapters/message-bus/memory.ts";
import { limits } from "#shared/domain/limits.ts";
import { type PeekRange, readPeekRanges } from "#shared/formats/peek-ranges.ts";
import { decodeMessage, encodeWith, isBadMessage, sealMessage } from "#shared/formats/replica-message.ts";
import { GatheredReads } from "../../../services/gateway/engine/gathered-reads.ts";

const subject = "node";
const slab = { bytes: Buffer.alloc(64 * 1024), address: 0 };

/** `found` says which are in memory; a range's bytes are its offset's last digit. */
function world(found: (range: PeekRange) => boolean = () => true) {
  const bus = new MemoryMessageBus();
  const asked: { readonly leastLsn: number; readonly offsets: readonly number[] }[] = [];
  const epochs: number[] = [];
  const shown: [string, number][] = [];
  const clock = { nowMs: 0, monotonicMs: () => clock.nowMs };
  const counters = { gatheredReads: 0 };
  const node = { surplus: 0, silent: false };
  bus.serve(subject, (data) => {
    const decoded = decodeMessage(data);
    if (node.silent || isBadMessage(decoded) || decoded.message.type !== "peek") return null;
    const ranges = readPeekRanges(decoded.payload) ?? [];
    asked.push({ leastLsn: decoded.message.leastLsn, offsets: ranges.map(({ offset }) => offset) });
    const mask = ranges.reduce((sum, range, index) => sum + (found(range) ? 2 ** index : 0), 0);
    const parts = ranges.filter(found).map(({ offset, length }) => Buffer.alloc(length, offset % 10));
    const body = Buffer.concat([...parts, Buffer.alloc(node.surplus)]);
    const answer = { type: "peeked", shownLsn: 9, epoch: 3, found: mask } as const;
    const { bytes, payloadAt } = encodeWith(answer, body.length);
    body.copy(bytes, payloadAt);
    sealMessage(bytes);
    return bytes;
  });
  const reads = new GatheredReads({
    bus,
    clock,
    node: () => "b",
    subject: () => subject,
    leastLsn: () => 7,
    onShown: (name, lsn) => shown.push([name, lsn]),
    onEpoch: (epoch) => epochs.push(epoch),
    counters,
  });
  slab.bytes.fill(99);
  const read = async (...ranges: readonly (readonly [offset: number, length: number])[]) =>
    Promise.all(
      ranges.map(async ([offset, length], index) => reads.read(slab, index * 8192, length, offset)),
    );
  return { asked, epochs, shown, clock, counters, node, read };
}

describe("gathered reads", () => {
  test("of one round go in one message, and each gets its bytes", async () => {
    const { asked, epochs, shown, counters, read } = world();
    expect(await read([1, 4096], [22, 512], [3, 8192])).toEqual([true, true, true]);
    expect(asked).toEqual([{ leastLsn: 7, offsets: [1, 22, 3] }]);
    expect([slab.bytes[0], slab.bytes[4095], slab.bytes[4096]]).toEqual([1, 1, 99]);
    expect([slab.bytes[8192], slab.bytes[8192 + 511], slab.bytes[8192 + 512]]).toEqual([2, 2, 99]);
    expect(slab.bytes.subarray(16_384, 24_576).every((byte) => byte === 3)).toBe(true);
    expect([epochs, counters.gatheredReads]).toEqual([[3], 3]);
    expect(shown).toEqual([["b", 9]]);
  });

  test("a message holds so many bytes and ranges; the rest goes in the next one", async () => {
    const { asked, read } = world();
    expect(await read([1, 8192], [2, 8192], [3, 8192], [4, 512])).toEqual([true, true, true, true]);
    expect(asked.map(({ offsets }) => offsets)).toEqual([
      [1, 2],
      [3, 4],
    ]);
  });

  test("one alone, and a long one, are not held back", async () => {
    const { asked, read } = world();
    expect(await read([1, 4096])).toEqual([false]);
    expect(await read([1, limits.replicaPeek.readBytesMax + 1], [2, 512])).toEqual([false, false]);
    expect(asked).toEqual([]);
  });

  test("what the node does not have in memory is asked for alone, its place untouched", async () => {
    const { read } = world(({ offset }) => offset !== 2);
    expect(await read([1, 512], [2, 512], [3, 512])).toEqual([true, false, true]);
    expect([slab.bytes[0], slab.bytes[8192], slab.bytes[16_384]]).toEqual([1, 99, 3]);
  });

  test("an answer of another length than it says puts nothing anywhere", async () => {
    const { node, counters, read } = world();
    node.surplus = 1;
    expect(await read([1, 512], [2, 512])).toEqual([false, false]);
    expect([slab.bytes[0], slab.bytes[8192], counters.gatheredReads]).toEqual([99, 99, 0]);
  });

  test("a node that has next to nothing in memory is asked less and less often", async () => {
    const { asked, read } = world(() => false);
    for (let round = 0; round < 200; round += 1) await read([1, 512], [2, 512]);
    expect(asked.length).toBeLessThan(8);
  });

  test("a node that does not answer, or knows no peek, is left alone for a while", async () => {
    const { asked, clock, node, read } = world();
    node.silent = true;
    expect(await read([1, 512], [2, 512])).toEqual([false, false]);
    node.silent = false;
    expect(await read([1, 512], [2, 512])).toEqual([false, false]);
    expect(asked).toEqual([]);
    clock.nowMs = limits.replicaSilentMs;
    expect(await read([1, 512], [2, 512])).toEqual([true, true]);
  });
});
