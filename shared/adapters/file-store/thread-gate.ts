/*
 * The cold reads of a store's files. Bounds how many hold a thread of the pool at once, so that a log's sync always finds one.
 * A small read that was refused inline has begun to fetch its pages (Linux 5.10), so a few threads that wait for the oldest
 * ones are enough: when one returns, the next in line are asked inline again, and most of them are answered without a thread.
 * Owns counts and queue; native-file.ts makes the reads.
 */
import { limits } from "#shared/domain/limits.ts";

/** A read whose pages were not in memory. */
export interface ColdRead {
  /** Its pages are being fetched, so asking for them again may help. */
  readonly askable: boolean;
  /** Takes the pages if they have come, tells whoever waits and returns true. */
  ask(): boolean;
  /** Reads on a thread; leave() follows, once. */
  start(): void;
}

/** Asked in vain this often in a row, the rest of the line is left in peace: reads come roughly in order. */
const missesMax = 4;
/** Asking pays while one in five asks is answered; the sum of both never passes the last figure. */
const answeredWorth = 4;
const trustMax = 64;
/** Where asking does not pay (an older kernel, a slow disk) so many reads go to threads before it is tried again. */
const untrustedReads = 1024;
const trustAgain = 16;

export class ThreadGate {
  readonly #widthMax: number;
  #running = 0;
  #askableRunning = 0;
  /** In the order of their coming. */
  readonly #waiting: ColdRead[] = [];
  #trust = trustAgain;
  #untrusted = 0;

  constructor(widthMax: number) {
    this.#widthMax = widthMax;
  }

  /** Starts the read now, or when its turn comes, or has it answered without a thread. */
  enter(read: ColdRead): void {
    if (this.#untrusted > 0) {
      this.#untrusted -= 1;
      if (this.#untrusted === 0) this.#trust = trustAgain;
    }
    if (this.#mayStart(read)) this.#start(read);
    else this.#waiting.push(read);
  }

  /** A started read has ended. */
  leave(read: ColdRead): void {
    this.#running -= 1;
    if (read.askable) this.#askableRunning -= 1;
    if (this.#waiting.length === 0) return;
    this.#askWaiting();
    for (let at = 0; at < this.#waiting.length && this.#running < this.#widthMax; ) {
      const next = this.#waiting[at];
      if (next === undefined) return;
      if (this.#mayStart(next)) {
        this.#waiting.splice(at, 1);
        this.#start(next);
      } else at += 1;
    }
  }

  #mayStart(read: ColdRead): boolean {
    if (this.#running >= this.#widthMax) return false;
    return !read.askable || this.#untrusted > 0 || this.#askableRunning < limits.coldReadsAwaitedMax;
  }

  #start(read: ColdRead): void {
    this.#running += 1;
    if (read.askable) this.#askableRunning += 1;
    read.start();
  }

  #askWaiting(): void {
    const waiting = this.#waiting;
    let kept = 0;
    let misses = 0;
    for (let at = 0; at < waiting.length; at += 1) {
      const read = waiting[at];
      if (read === undefined) break;
      if (read.askable && misses < missesMax) {
        if (read.ask()) {
          this.#trust = Math.min(trustMax, this.#trust + answeredWorth);
          continue;
        }
        misses += 1;
      }
      waiting[kept] = read;
      kept += 1;
    }
    waiting.length = kept;
    this.#trust -= misses;
    if (this.#trust <= 0 && this.#untrusted === 0) this.#untrusted = untrustedReads;
  }
}

/** Half of libuv's pool, so that the other half is there for syncs and gathered writes. */
export function coldReadWidth(poolSize: string | undefined): number {
  const threads = Number(poolSize ?? "4");
  return Math.max(1, Math.floor((Number.isFinite(threads) ? threads : 4) / 2));
}
