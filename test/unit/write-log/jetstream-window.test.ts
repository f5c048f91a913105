// The window of published messages against answers that come when and as the test wants: what counts as stored, and what is
// sent again (docs/specs/jetstream-log.md, J1 and J4). Real servers answer in order; these don't.
import { beforeEach, describe, expect, test } from "vitest";
import type { PublishFailure } from "#shared/adapters/write-log/jetstream-errors.ts";
import type { LogStream } from "#shared/adapters/write-log/jetstream-stream.ts";
import { onlyWay } from "#shared/adapters/write-log/jetstream-way.ts";
import { PublishWindow } from "#shared/adapters/write-log/jetstream-window.ts";
import { VarveError } from "#shared/domain/errors.ts";

interface Sent {
  readonly epoch: number;
  readonly lastSequence: number;
  readonly body: Uint8Array;
  readonly answerMs: number;
  readonly answer: (answer: number | PublishFailure) => Promise<void>;
}

const away: PublishFailure = { fault: "noAnswer", error: new VarveError("LogAway", "Retry", "no answer") };

let sent: Sent[];
let told: string[];
let givenBack: number[];
let window: PublishWindow;

beforeEach(() => {
  sent = [];
  told = [];
  givenBack = [];
  const stream = {
    way: onlyWay,
    giveBack: (body: Uint8Array) => void givenBack.push(body[0] ?? 0),
    publish: (epoch: number, lastSequence: number, body: Uint8Array, answerMs: number) => {
      const { promise, resolve } = Promise.withResolvers<number | PublishFailure>();
      const answer = async (value: number | PublishFailure): Promise<void> => {
        resolve(value);
        await promise;
        await Promise.resolve();
      };
      sent.push({ epoch, lastSequence, body, answerMs, answer });
      return promise;
    },
  } as unknown as LogStream;
  window = new PublishWindow(stream, 4, {
    stored: (message, sequence) => void told.push(`${message.lastLsn}@${sequence}`),
    failed: (failure) => void told.push(`failed ${failure?.fault ?? "sequence"}`),
  });
  window.goOn(7, 100);
});

/** Messages of one entry each, LSN 1, 2, … */
function send(count: number): void {
  for (let lsn = 1; lsn <= count; lsn += 1) window.send(Buffer.from([lsn]), lsn, lsn, BigInt(lsn));
}

const sequences = (from = 0): number[] => sent.slice(from).map(({ lastSequence }) => lastSequence);
const at = (index: number): Sent => {
  const one = sent[index];
  if (one === undefined) throw new Error(`message ${index} was not sent`);
  return one;
};

describe("the window", () => {
  test("each message wants the place behind the one before, without waiting", () => {
    send(3);
    expect(sequences()).toEqual([100, 101, 102]);
    expect(sent.every(({ epoch }) => epoch === 7)).toBe(true);
    expect(window.isFull).toBe(false);
    send(1);
    expect(window.isFull).toBe(true);
  });

  test("a message counts only when all before it do", async () => {
    send(3);
    await at(1).answer(102);
    await at(2).answer(103);
    expect(told).toEqual([]);
    await at(0).answer(101);
    expect(told).toEqual(["1@101", "2@102", "3@103"]);
    expect(window.count).toBe(0);
  });

  test("a message's memory is given back when it is stored, unless it was sent twice: a connection may still hold it", async () => {
    send(3);
    await at(1).answer(102);
    expect(givenBack).toEqual([]);
    await at(0).answer(101);
    expect(givenBack).toEqual([1, 2]);
    window.goOn(7, 102);
    await at(3).answer(103);
    expect(told.at(-1)).toBe("3@103");
    expect(givenBack).toEqual([1, 2]);
  });

  test("after the first failure no later success counts, and it is told once", async () => {
    send(4);
    await at(0).answer(101);
    await at(1).answer(away);
    await at(2).answer(103);
    await at(3).answer(away);
    expect(told).toEqual(["1@101", "failed noAnswer"]);
    expect(window.count).toBe(3);
  });

  test("an answer with another sequence than expected is a failure", async () => {
    send(2);
    await at(0).answer(205);
    await at(1).answer(102);
    expect(told).toEqual(["failed sequence"]);
  });

  test("what is left is sent again: same bytes, same places, and answers of before don't count", async () => {
    send(4);
    await at(0).answer(101);
    await at(1).answer(away);
    const bodies = sent.slice(1).map(({ body }) => body);
    // The stream holds the second as well: its answer was lost.
    const taken: number[] = [];
    expect(window.settle(2, 2n, ({ lastLsn }) => void taken.push(lastLsn))).toBe(true);
    expect(taken).toEqual([2]);
    window.goOn(7, 102);
    expect(sequences(4)).toEqual([102, 103]);
    expect(sent.slice(4).map(({ body }) => body)).toEqual(bodies.slice(1));
    await at(2).answer(103);
    expect(told).toEqual(["1@101", "failed noAnswer"]);
    await at(4).answer(103);
    await at(5).answer(104);
    expect(told.slice(2)).toEqual(["3@103", "4@104"]);
  });

  test("what the stream holds and was not sent is not taken for ours", () => {
    send(3);
    const taken: number[] = [];
    const take = ({ lastLsn }: { lastLsn: number }): void => void taken.push(lastLsn);
    expect(window.settle(2, 99n, take)).toBe(false);
    expect(window.settle(9, 9n, take)).toBe(false);
    expect(taken).toEqual([]);
    expect(window.count).toBe(3);
  });

  test("each silence makes the next answer's limit longer, up to a bound, until something is stored", async () => {
    send(1);
    await at(0).answer(away);
    for (let round = 0; round < 6; round += 1) window.waitLonger();
    window.goOn(7, 100);
    expect(sent.map(({ answerMs }) => answerMs)).toEqual([1000, 8000]);
    await at(1).answer(101);
    send(1);
    expect(at(2).answerMs).toBe(1000);
  });

  test("cleared, it neither sends nor listens", async () => {
    send(2);
    window.clear();
    await at(0).answer(101);
    window.goOn(8, 300);
    expect(told).toEqual([]);
    expect(sent).toHaveLength(2);
    window.send(Buffer.from([5]), 5, 5, 5n);
    expect(at(2)).toMatchObject({ epoch: 8, lastSequence: 300 });
  });
});
