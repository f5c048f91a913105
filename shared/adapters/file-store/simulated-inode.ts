/*
 * One file of the simulated disk: what the process sees (the cache), what a power cut leaves (the platter), and the steps
 * between the two. Owns torn writes: a step that was not synced survives in any subset of its 512-byte sectors, in any mix
 * with older and newer steps. Called by simulated-file.ts for IO and by simulated-disk.ts at a crash.
 */
import type { Random } from "#shared/ports/clock.ts";
import type { FileFacts } from "#shared/ports/file-store.ts";
import { SparseBytes } from "./sparse-bytes.ts";

const sectorBytes = 512;
const blockBytes = 4096;

/** A change with its own copy of the data. */
export type Step =
  | { readonly kind: "write"; readonly data: Uint8Array; readonly offset: number }
  | { readonly kind: "punch" | "zero" | "allocate"; readonly offset: number; readonly length: number }
  | { readonly kind: "truncate"; readonly sizeBytes: number };

interface PendingStep {
  readonly step: Step;
  readonly sequence: number;
  readonly durable: boolean;
}

export function takeStep(content: SparseBytes, step: Step): void {
  if (step.kind === "write") content.write(step.data, step.offset);
  else if (step.kind === "truncate") content.truncate(step.sizeBytes);
  else content[step.kind](step.offset, step.length);
}

export class SimulatedInode {
  readonly number: bigint;
  readonly platter: SparseBytes;
  cache: SparseBytes;
  changedNs: bigint;
  /** The time that the platter has: data syncs leave it behind. */
  #keptNs: bigint;
  /** The open file that holds qemu's lock bytes. */
  imageLockHolder: object | null = null;
  #pending: PendingStep[] = [];

  constructor(number: bigint, content: SparseBytes = new SparseBytes()) {
    this.number = number;
    this.changedNs = number;
    this.#keptNs = number;
    this.platter = content;
    this.cache = content.clone();
  }

  /** The step as the process sees it; `durable`: it also survives any crash from now on. */
  take(step: Step, sequence: number, durable: boolean): void {
    takeStep(this.cache, step);
    this.#pending.push({ step, sequence, durable });
    this.changedNs = BigInt(sequence);
    // Durable steps go down as soon as nothing older is open, so that a log of durable writes keeps no list.
    let settled = 0;
    for (const pending of this.#pending) {
      if (!pending.durable) break;
      takeStep(this.platter, pending.step);
      settled += 1;
    }
    if (settled > 0) this.#pending.splice(0, settled);
  }

  /** A sync that succeeded: every step up to `sequence` is on the platter. */
  flush(sequence: number): void {
    this.#settle(sequence, (step) => takeStep(this.platter, step));
  }

  /**
   * A sync that failed: the pages count as clean now, whether they reached the platter or not. Reads show them as long as
   * they stay cached; `evicted` says that they don't.
   */
  lose(sequence: number, evicted: boolean, random: Random): void {
    this.#settle(sequence, (step) => surviveInPart(this.platter, step, random));
    if (!evicted) return;
    this.cache = this.platter.clone();
    for (const { step } of this.#pending) takeStep(this.cache, step);
  }

  #settle(sequence: number, settle: (step: Step) => void): void {
    const kept: PendingStep[] = [];
    for (const pending of this.#pending) {
      if (pending.sequence > sequence) kept.push(pending);
      else if (pending.durable) takeStep(this.platter, pending.step);
      else settle(pending.step);
    }
    this.#pending = kept;
  }

  keepTimes(): void {
    this.#keptNs = this.changedNs;
  }

  /** The power fails: durable steps survive, of the others any part. */
  crash(random: Random): void {
    for (const { step, durable } of this.#pending) {
      if (durable) takeStep(this.platter, step);
      else surviveInPart(this.platter, step, random);
    }
    this.#pending = [];
    this.cache = this.platter.clone();
    this.imageLockHolder = null;
    // Times are written now and then on their own; only a full sync promises it.
    if (random.next() < 0.5) this.changedNs = this.#keptNs;
    this.#keptNs = this.changedNs;
  }

  flipBit(offset: number, bit: number): void {
    this.cache.flipBit(offset, bit);
    this.platter.flipBit(offset, bit);
  }

  facts(): FileFacts {
    return {
      sizeBytes: this.cache.sizeBytes,
      allocatedBytes: this.cache.allocatedBytes,
      inode: this.number,
      mtimeNs: this.changedNs,
      ctimeNs: this.changedNs,
    };
  }
}

/** None, all or some of a step. */
function surviveInPart(platter: SparseBytes, step: Step, random: Random): void {
  const mood = random.next();
  if (mood < 0.25) return;
  if (mood < 0.5) takeStep(platter, step);
  else if (step.kind === "write") surviveBySector(platter, step.data, step.offset, random);
  else if (step.kind !== "truncate") {
    const blocks = Math.ceil(step.length / blockBytes);
    const length = Math.min(step.length, Math.floor(random.next() * blocks) * blockBytes);
    if (length > 0) takeStep(platter, { ...step, length });
  } else if (random.next() < 0.5) takeStep(platter, step);
}

function surviveBySector(platter: SparseBytes, data: Uint8Array, offset: number, random: Random): void {
  const share = random.next();
  const end = offset + data.length;
  for (let at = offset; at < end; ) {
    const next = Math.min(end, (Math.floor(at / sectorBytes) + 1) * sectorBytes);
    if (random.next() < share) platter.write(data.subarray(at - offset, next - offset), at);
    at = next;
  }
  // The new size may have survived although the bytes did not: then they read as zero.
  if (random.next() < 0.5) platter.sizeBytes = Math.max(platter.sizeBytes, end);
}
