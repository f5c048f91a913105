// Batches into messages: how many, how large, in which order, and what becomes of them when another epoch's entry goes first.
import { expect, test } from "vitest";
import { MessageQueue } from "#shared/adapters/write-log/jetstream-queue.ts";
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { MessageReader } from "#shared/formats/log-message.ts";

const KiB = 1024;
const frame = { line: "0f1e2d3c4b5a6978", epoch: 4, durableLsn: 0 };

function draftOf(firstLsn: number, bytes: number) {
  const slabBytes = 4096 + Math.ceil(bytes / 4096) * 4096;
  const draft = new BatchDraft({ bytes: Buffer.alloc(slabBytes, firstLsn & 0xff), address: 0 });
  draft.addWrite(firstLsn * 4096, bytes);
  draft.firstLsn = firstLsn;
  return draft;
}

/** Gathers all, and gives the batches of each message as [first LSN, previous checksum, checksum]. */
function gatherAll(queue: MessageQueue, epoch = frame.epoch) {
  const messages: { lsns: number[]; bytes: number }[] = [];
  let chain = 5n;
  while (!queue.isEmpty) {
    const message = queue.gather({ ...frame, epoch }, chain);
    const lsns: number[] = [];
    for (const item of new MessageReader().read(message.body)) {
      if ("fault" in item) throw new Error(item.detail);
      expect(item.batch.previousChecksum).toBe(chain);
      expect(item.batch.epoch).toBe(epoch);
      chain = item.batch.checksum;
      lsns.push(item.batch.firstLsn);
    }
    expect(message).toMatchObject({ firstLsn: lsns[0], lastLsn: lsns.at(-1), checksum: chain });
    messages.push({ lsns, bytes: message.body.length });
  }
  return messages;
}

function queueOf(lengths: readonly number[]): MessageQueue {
  const queue = new MessageQueue(1016 * KiB, 256 * KiB);
  lengths.forEach((bytes, index) => queue.push(draftOf(index + 1, bytes)));
  return queue;
}

test("small batches are gathered to about 256 KiB, in order, each a record of its own", () => {
  const messages = gatherAll(queueOf(Array.from({ length: 100 }, () => 8 * KiB)));
  expect(messages.flatMap(({ lsns }) => lsns)).toEqual(Array.from({ length: 100 }, (_, index) => index + 1));
  for (const { bytes } of messages.slice(0, -1)) {
    expect(bytes).toBeGreaterThanOrEqual(256 * KiB);
    expect(bytes).toBeLessThan(270 * KiB);
  }
});

test("a long backlog makes larger messages, and none is larger than a message may be", () => {
  const messages = gatherAll(
    queueOf(Array.from({ length: 300 }, (_, index) => (index % 7 === 0 ? 900 : 40) * KiB)),
  );
  expect(Math.max(...messages.map(({ bytes }) => bytes))).toBeGreaterThan(900 * KiB);
  for (const { bytes } of messages) expect(bytes).toBeLessThanOrEqual(1016 * KiB);
  expect(messages.flatMap(({ lsns }) => lsns)).toHaveLength(300);
});

test("a full message waits when 256 KiB do", () => {
  const queue = queueOf([100 * KiB, 100 * KiB]);
  expect(queue.hasFullMessage).toBe(false);
  queue.push(draftOf(3, 60 * KiB));
  expect(queue.hasFullMessage).toBe(true);
  queue.gather(frame, 0n);
  expect(queue.hasFullMessage).toBe(false);
});

test("behind another epoch's entry everything that is not durable is framed anew, one LSN later", () => {
  const queue = queueOf([10, 20, 30, 40]);
  const first = queue.gather(frame, 0n);
  expect([first.firstLsn, first.lastLsn]).toEqual([1, 4]);
  queue.push(draftOf(5, 50));
  const promised = queue.promisedBytes;
  queue.dropThrough(2);
  expect(queue.promisedBytes).toBe(promised - 2 * 8192);
  queue.renumber();
  expect(gatherAll(queue, 9).map(({ lsns }) => lsns)).toEqual([[4, 5, 6]]);
  queue.dropThrough(6);
  expect(queue.promisedBytes).toBe(0);
});
