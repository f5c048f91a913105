// Several short reads in one message: those that are in memory, in their order, and none of a replica that is behind or halted.
import { describe, expect, test } from "vitest";
import { limits } from "#shared/domain/limits.ts";
import { type PeekRange, peekRangeBytes, writePeekRanges } from "#shared/formats/peek-ranges.ts";
import { decodeMessage, isBadMessage } from "#shared/formats/replica-message.ts";
import { answerPeek, type PeekedReplica } from "../../../services/storage/engine/replica-peek.ts";

const slab = { bytes: Buffer.alloc(limits.replicaReadBytesMax), address: 0 };
const state = {
  sizeBytes: 2 ** 20,
  appliedLsn: 9,
  begunLsn: 9,
  checkpointLsn: 9,
  dirtyBytes: 0,
  allocatedBytes: 0,
};

/** In memory is what lies below 64 KiB; bytes are the number of their 4 KiB. */
const replica = (failure: Error | null = null): PeekedReplica => ({
  image: {
    state: () => state,
    readInline: (to, start, length, offset) => {
      if (offset >= 64 * 1024) return -1;
      to.bytes.fill(offset / 4096, start, start + length);
      return length;
    },
  },
  epoch: 3,
  failure,
  hasReached: (lsn) => lsn <= state.appliedLsn,
});

const peek = (ranges: readonly PeekRange[], leastLsn = 9, of = replica()) => {
  const payload = Buffer.alloc(ranges.length * peekRangeBytes);
  writePeekRanges(ranges, payload, 0);
  const answer = answerPeek({ type: "peek", leastLsn }, payload, of, slab);
  const decoded = answer === null ? null : decodeMessage(answer);
  return decoded === null || isBadMessage(decoded) ? null : decoded;
};
const ranges = [
  { offset: 8192, length: 4096 },
  { offset: 2 ** 40, length: 4096 },
  { offset: 4096, length: 512 },
];

describe("a peek", () => {
  test("is answered with what is in memory, and says which that is", () => {
    const answer = peek(ranges);
    expect(answer?.message).toEqual({ type: "peeked", shownLsn: 9, epoch: 3, found: 0b101 });
    expect(answer?.payload.equals(Buffer.concat([Buffer.alloc(4096, 2), Buffer.alloc(512, 1)]))).toBe(true);
  });

  test("shows nothing of a replica that is behind, or halted", () => {
    for (const answer of [peek(ranges, 10), peek(ranges, 9, replica(new Error("a flipped bit")))]) {
      expect([answer?.message, answer?.payload.length]).toEqual([
        { type: "peeked", shownLsn: 9, epoch: 3, found: 0 },
        0,
      ]);
    }
  });

  test("of the most and longest ranges fits an answer; one more, or a longer one, is dropped", () => {
    const { rangesMax, readBytesMax } = limits.replicaPeek;
    const most = Array.from({ length: rangesMax }, () => ({
      offset: 4096,
      length: readBytesMax,
    }));
    expect(peek(most)?.payload.length).toBe(rangesMax * readBytesMax);
    expect(peek([...most, { offset: 0, length: 1 }])).toBeNull();
    expect(peek([{ offset: 0, length: readBytesMax + 1 }])).toBeNull();
  });
});
