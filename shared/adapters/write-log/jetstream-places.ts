/*
 * Where in its stream an LSN stands. The writer remembers its own messages, a reader those that it met, both thinned out where they
 * become many; others are looked up: the tenures by their first messages, then one tenure by halves. Both only count messages of the
 * tenure itself, so what a fenced writer left between them never misleads. Used for release and for reading from an LSN.
 */
import { limits } from "#shared/domain/limits.ts";
import type { VolumeStream } from "./jetstream-stream.ts";
import { type MessageEnds, messageEnds } from "./jetstream-tail.ts";

interface Place {
  readonly firstLsn: number;
  readonly sequence: number;
}

export class LogPlaces {
  readonly #stream: VolumeStream;
  #own: Place[] = [];
  /** Every so many messages one is remembered. */
  #stride = 1;
  #skipped = 0;

  constructor(stream: VolumeStream) {
    this.#stream = stream;
  }

  /** A message of our own, in order. */
  add(firstLsn: number, sequence: number): void {
    this.#skipped += 1;
    if (this.#skipped < this.#stride && this.#own.length > 0) return;
    this.#skipped = 0;
    this.#own.push({ firstLsn, sequence });
    if (this.#own.length <= limits.jetstreamPlacesMax) return;
    this.#own = this.#own.filter((_, index) => index % 2 === 0);
    this.#stride *= 2;
  }

  /** Messages before that sequence are gone. */
  forgetBefore(sequence: number): void {
    const first = this.#own.findIndex((place) => place.sequence >= sequence);
    this.#own.splice(0, first === -1 ? this.#own.length : first);
  }

  /**
   * The sequence of the message that holds `lsn`, or of one shortly before it; 0 where the stream begins behind it.
   */
  async before(lsn: number): Promise<number> {
    const own = this.#own.findLast(({ firstLsn }) => firstLsn <= lsn);
    return own?.sequence ?? (await findPlace(this.#stream, lsn));
  }
}

/** LSNs that stand in the message with that sequence, or in those behind it that follow without a gap. */
interface MetMessages {
  readonly firstLsn: number;
  lastLsn: number;
  readonly sequence: number;
}

/**
 * What a reader met, so that it finds it again without looking it up: a look-up reads a message for each halving. A sequence never
 * changes its content, so what was met stays true; what was released meanwhile is told by what stands there instead.
 */
export class MetPlaces {
  readonly #max: number;
  /** Ascending, none overlaps another. */
  #met: MetMessages[] = [];

  constructor(max: number = limits.jetstreamPlacesMax) {
    this.#max = max;
  }

  get size(): number {
    return this.#met.length;
  }

  /** Entries of a message that count, from its first one on, or more of the message that was met last. */
  add(firstLsn: number, lastLsn: number, sequence: number): void {
    const at = this.#indexOf(firstLsn);
    const before = this.#met[at];
    if (before !== undefined && before.lastLsn >= firstLsn) return;
    if (before?.sequence === sequence) {
      before.lastLsn = lastLsn;
      return;
    }
    this.#met.splice(at + 1, 0, { firstLsn, lastLsn, sequence });
    if (this.#met.length > this.#max) this.#thinOut();
  }

  /** The sequence of the message that holds `lsn`, or of one shortly before it; 0: it was not met. */
  find(lsn: number): number {
    const found = this.#met[this.#indexOf(lsn)];
    return found !== undefined && found.lastLsn >= lsn ? found.sequence : 0;
  }

  /** Of the last one that begins at or before it; -1: there is none. */
  #indexOf(lsn: number): number {
    let [low, high] = [0, this.#met.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#met[middle] as MetMessages).firstLsn <= lsn) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  /** Two neighbours become one; where there are few of them, the older half goes, which is released first. */
  #thinOut(): void {
    const thinned: MetMessages[] = [];
    let joins = false;
    for (const one of this.#met) {
      const last = thinned.at(-1);
      joins = !joins && last !== undefined && last.lastLsn + 1 === one.firstLsn;
      if (joins && last !== undefined) last.lastLsn = one.lastLsn;
      else thinned.push(one);
    }
    this.#met = thinned.length > (3 * this.#max) / 4 ? thinned.slice(thinned.length >>> 1) : thinned;
  }
}

/** As LogPlaces.before, by asking the stream alone. */
export async function findPlace(stream: VolumeStream, lsn: number): Promise<number> {
  const view = await stream.view();
  const first = view === null || view.messages === 0 ? null : await stream.at(view.firstSequence);
  // Of an older epoch than the first message's there is only what a fenced writer left.
  const epochs = (view?.epochs ?? []).filter((epoch) => epoch >= (first?.epoch ?? 0));
  const starts = new Map<number, MessageEnds | null>();
  const startOf = async (epoch: number): Promise<MessageEnds | null> => {
    const known = starts.get(epoch);
    if (known !== undefined) return known;
    const found = await next(stream, epoch, view?.firstSequence ?? 1);
    starts.set(epoch, found);
    return found;
  };
  let low = 0;
  let high = epochs.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    const start = await startOf(epochs[middle] ?? 0);
    if (start !== null && start.firstLsn <= lsn) low = middle;
    else high = middle - 1;
  }
  const epoch = epochs[low];
  const start = epoch === undefined ? null : await startOf(epoch);
  if (epoch === undefined || start === null || start.firstLsn > lsn) return 0;
  const following = epochs[low + 1];
  const end = following === undefined ? null : await startOf(following);
  return await halve(stream, start, (end?.sequence ?? (view?.lastSequence ?? 0) + 1) - 1, lsn);
}

/** Between the start of a tenure and its last sequence. */
async function halve(
  stream: VolumeStream,
  start: MessageEnds,
  lastSequence: number,
  lsn: number,
): Promise<number> {
  let low = start.sequence;
  let high = lastSequence;
  while (low < high) {
    const middle = low + Math.ceil((high - low) / 2);
    const found = await next(stream, start.epoch, middle);
    if (found === null || found.sequence > high || found.firstLsn > lsn) high = middle - 1;
    else low = found.sequence;
  }
  return low;
}

async function next(stream: VolumeStream, epoch: number, sequence: number): Promise<MessageEnds | null> {
  const message = await stream.nextOf(epoch, sequence);
  return message === null ? null : messageEnds(stream.name, message);
}
