/*
 * Short reads of one volume that come in one round of input, asked of a storage node in one message: what each costs alone on its way
 * through two processes and a server is most of its time. The node answers what it has in memory; what is missing is asked for alone
 * (remote-replica.ts, which owns this), and so is what nobody answers. One read alone is never held back.
 * limits.replicaPeek: at depth 32 most comes through a server in messages of 16 KiB (60,000 reads of 4 KiB a second; 44,000 in messages of
 * 64 KiB, and in messages of 4 KiB); who waits for nothing answers in a millisecond, so 100 ms are silence.
 */
import { limits } from "#shared/domain/limits.ts";
import { peekRangeBytes, writePeekRanges } from "#shared/formats/peek-ranges.ts";
import { decodeMessage, encodeWith, isBadMessage, sealMessage } from "#shared/formats/replica-message.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import type { Slab } from "#shared/ports/slab.ts";

export interface GatheredReadsOptions {
  readonly bus: Pick<MessageBus, "request">;
  readonly clock: Pick<Clock, "monotonicMs">;
  /** The node that is to be asked now; null: none. */
  readonly node: () => string | null;
  readonly subject: (node: string) => string;
  /** What an answer of that node must at least show. */
  readonly leastLsn: (node: string) => number;
  /** What its answer may show. */
  readonly onShown: (node: string, lsn: number) => void;
  /** The epoch that the replica has applied; told before the bytes count. */
  readonly onEpoch: (epoch: number) => void;
  readonly counters: { gatheredReads: number };
}

interface Waiting {
  readonly slab: Slab;
  readonly start: number;
  readonly length: number;
  readonly offset: number;
  /** False: it must be asked for alone. */
  readonly resolve: (placed: boolean) => void;
}

/** After an answer with next to nothing so many reads go alone, each time more. */
const pauseMax = 1023;

export class GatheredReads {
  readonly #options: GatheredReadsOptions;
  #waiting: Waiting[] = [];
  #waitingBytes = 0;
  /** Reads that still go alone, and how many the next time. */
  #alone = 0;
  #pause = 0;
  #restUntilMs = 0;

  constructor(options: GatheredReadsOptions) {
    this.#options = options;
  }

  /** Resolves with true when the bytes are in their place; never rejects. */
  read(slab: Slab, start: number, length: number, offset: number): Promise<boolean> {
    if (length > limits.replicaPeek.readBytesMax || !this.#mayGather()) return Promise.resolve(false);
    return new Promise((resolve) => {
      this.#waiting.push({ slab, start, length, offset, resolve });
      this.#waitingBytes += length;
      if (this.#waiting.length === 1) queueMicrotask(() => this.#flush());
      else if (this.#isFull) this.#flush();
    });
  }

  get #isFull(): boolean {
    const { rangesMax, messageBytes } = limits.replicaPeek;
    return this.#waiting.length === rangesMax || this.#waitingBytes >= messageBytes;
  }

  #mayGather(): boolean {
    if (this.#alone === 0) return true;
    this.#alone -= 1;
    return false;
  }

  #flush(): void {
    const reads = this.#waiting;
    if (reads.length === 0) return;
    this.#waiting = [];
    this.#waitingBytes = 0;
    const { clock, node } = this.#options;
    const isResting = clock.monotonicMs() < this.#restUntilMs;
    const asked = reads.length > 1 && !isResting ? node() : null;
    if (asked === null) for (const { resolve } of reads) resolve(false);
    else
      this.#ask(asked, reads).catch(() => {
        // A node that is away, or of a Varve that knows no peek.
        this.#restUntilMs = clock.monotonicMs() + limits.replicaSilentMs;
        for (const { resolve } of reads) resolve(false);
      });
  }

  async #ask(node: string, reads: readonly Waiting[]): Promise<void> {
    const { bus, subject, leastLsn, onShown, onEpoch, counters } = this.#options;
    const request = { type: "peek", leastLsn: leastLsn(node) } as const;
    const { bytes, payloadAt } = encodeWith(request, reads.length * peekRangeBytes);
    writePeekRanges(reads, bytes, payloadAt);
    sealMessage(bytes);
    const decoded = decodeMessage(await bus.request(subject(node), bytes, limits.replicaPeek.answerMs));
    if (isBadMessage(decoded) || decoded.message.type !== "peeked") {
      for (const { resolve } of reads) resolve(false);
      return;
    }
    const { message, payload } = decoded;
    onEpoch(message.epoch);
    if (message.found !== 0) onShown(node, message.shownLsn);
    const isFound = (index: number): boolean => Math.floor(message.found / 2 ** index) % 2 === 1;
    const expected = reads.reduce((sum, { length }, index) => sum + (isFound(index) ? length : 0), 0);
    const isWhole = payload.length === expected;
    let count = 0;
    let at = 0;
    for (const [index, { slab, start, length, resolve }] of reads.entries()) {
      const placed = isWhole && isFound(index);
      if (placed) {
        payload.copy(slab.bytes, start, at, at + length);
        at += length;
        count += 1;
      }
      resolve(placed);
    }
    counters.gatheredReads += count;
    this.#pause = 4 * count >= reads.length ? 0 : Math.min(pauseMax, 2 * this.#pause + 1);
    this.#alone = this.#pause * limits.replicaPeek.rangesMax;
  }
}
