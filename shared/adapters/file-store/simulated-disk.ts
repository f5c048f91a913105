/*
 * A disk for the simulator: a FileStore over memory with seeded faults, power cuts and kills. Owns the medium's state across
 * crashes, the faults' chances and the operations under way. Built by tests; store() is what a process opens, and every
 * completion goes through the simulator's `schedule`, so that one seed gives one order. See docs/adr/004-file-store-and-slabs.md.
 *
 *   store() ─IO─► cache ─sync─► platter      crash(): cache := platter + any part of what was not synced
 *                                            kill():  cache stays; what was under way stops anywhere
 */
import { FileStoreError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import type { Random } from "#shared/ports/clock.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import { SimulatedInode } from "./simulated-inode.ts";
import { SimulatedNames } from "./simulated-names.ts";
import { SimulatedFileStore } from "./simulated-store.ts";

/** Chances per call, 0 to 1. All may be changed at any time. */
export interface DiskFaults {
  /** An inline read finds a page that is not cached. */
  coldRead: number;
  /** An inline read returns fewer bytes than asked. */
  shortRead: number;
  readError: number;
  /** EIO on a write, an apply, a truncate; a part of it is done. */
  writeError: number;
  /** EIO on a sync; the pages count as clean afterwards and may be lost. */
  syncError: number;
  /** EIO on a change of names or on replaceWhole; nothing is done. */
  nameError: number;
}

export const noFaults: Readonly<DiskFaults> = {
  coldRead: 0,
  shortRead: 0,
  readError: 0,
  writeError: 0,
  syncError: 0,
  nameError: 0,
};

export interface SimulatedDiskOptions {
  readonly random: Random;
  /** Runs a completion later, in an order of the simulator's choice; never at once. */
  readonly schedule: (task: () => void) => void;
  readonly quotaBytes?: number;
  readonly faults?: Partial<DiskFaults>;
}

/** Something asked for and not done yet: what a kill (or crash) leaves of it. */
export interface UnderWay {
  abandon(): void;
}

const quotaBytesDefault = 2 ** 50;

export class SimulatedDisk {
  readonly random: Random;
  readonly faults: DiskFaults;
  /** Bytes that all files together may take. */
  quotaBytes: number;
  readonly names = new SimulatedNames<SimulatedInode>();
  readonly lockedDirectories = new Set<string>();
  /** Calls that were made; for statistics. */
  readonly counters = { operations: 0, faults: 0, crashes: 0, kills: 0 };
  readonly #schedule: (task: () => void) => void;
  readonly #underWay = new Set<UnderWay>();
  /** Every inode that a name holds now or may hold again after a crash. */
  #inodes = new Set<SimulatedInode>();
  #generation = 0;
  #sequence = 0;

  constructor(options: SimulatedDiskOptions) {
    this.random = options.random;
    this.#schedule = options.schedule;
    this.quotaBytes = options.quotaBytes ?? quotaBytesDefault;
    this.faults = { ...noFaults, ...options.faults };
  }

  /** The store of one process life: after the next crash() or kill() its calls never settle (inline ones throw EBADF). */
  store(): FileStore {
    return new SimulatedFileStore(this, this.#generation);
  }

  /** The power fails and comes back. */
  crash(): void {
    this.#endProcess();
    this.counters.crashes += 1;
    this.names.crash(this.random);
    for (const inode of this.#inodes) inode.crash(this.random);
    this.#forgetUnnamed();
  }

  /** kill -9: what the kernel has, it keeps. */
  kill(): void {
    this.#endProcess();
    this.counters.kills += 1;
    for (const inode of this.#inodes) inode.imageLockHolder = null;
    this.#forgetUnnamed();
  }

  /** Turns one stored bit over; false where the file does not exist or is shorter. */
  flipBit(path: string, offset: number, bit: number): boolean {
    const inode = this.names.seen.files.get(path);
    if (inode === undefined || offset >= inode.cache.sizeBytes) return false;
    inode.flipBit(offset, bit);
    return true;
  }

  get usedBytes(): number {
    let used = 0;
    for (const inode of this.names.seen.files.values()) used += inode.cache.allocatedBytes;
    return used;
  }

  isAlive(generation: number): boolean {
    return generation === this.#generation;
  }

  nextSequence(): number {
    this.#sequence += 1;
    return this.#sequence;
  }

  get sequence(): number {
    return this.#sequence;
  }

  newInode(): SimulatedInode {
    const inode = new SimulatedInode(BigInt(this.nextSequence()));
    this.#inodes.add(inode);
    return inode;
  }

  /** An inode that was replaced for good. */
  forgetInode(inode: SimulatedInode | undefined): void {
    if (inode !== undefined) this.#inodes.delete(inode);
  }

  /** Throws the fault where chance says so. */
  mayFail(chance: number, operation: string, path: string): void {
    if (!this.happens(chance)) return;
    this.counters.faults += 1;
    throw new FileStoreError(operation, path, "EIO");
  }

  happens(chance: number): boolean {
    return chance > 0 && this.random.next() < chance;
  }

  /**
   * Carries `work` out at a later moment; the promise settles then. A process that died meanwhile hears nothing, and
   * `abandon` leaves what an interrupted call leaves.
   */
  later<T>(generation: number, work: () => T, abandon?: () => void): Promise<T> {
    if (!this.isAlive(generation)) return new Promise<T>(() => undefined);
    this.counters.operations += 1;
    const underWay: UnderWay = { abandon: abandon ?? (() => undefined) };
    this.#underWay.add(underWay);
    return new Promise<T>((resolve, reject) => {
      this.#schedule(() => {
        if (!this.isAlive(generation)) return;
        this.#underWay.delete(underWay);
        try {
          resolve(work());
        } catch (error) {
          reject(error instanceof Error ? error : new Error(String(error)));
        }
      });
    });
  }

  #endProcess(): void {
    const interrupted = [...this.#underWay];
    this.#underWay.clear();
    this.#generation += 1;
    this.lockedDirectories.clear();
    for (const underWay of interrupted) underWay.abandon();
    invariant(this.#underWay.size === 0, "an interrupted call starts no other");
  }

  #forgetUnnamed(): void {
    this.#inodes = new Set(this.names.seen.files.values());
  }
}
