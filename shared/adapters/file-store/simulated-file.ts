/*
 * An open file of the simulated disk. Reads may be cold or short, writes may fail in the middle, run out of room or be torn
 * by a crash before they are synced. Opened by simulated-store.ts; simulated-inode.ts keeps what survives.
 */
import { FileStoreError } from "#shared/domain/errors.ts";
import type { BlockFile, FileFacts, FileOperation, OpenFileOptions } from "#shared/ports/file-store.ts";
import type { Slab, SlabPiece } from "#shared/ports/slab.ts";
import type { SimulatedDisk } from "./simulated-disk.ts";
import type { SimulatedInode, Step } from "./simulated-inode.ts";

const blockBytes = 4096;

export class SimulatedFile implements BlockFile {
  readonly path: string;
  readonly direct: boolean;
  readonly #disk: SimulatedDisk;
  readonly #generation: number;
  readonly #inode: SimulatedInode;
  readonly #readOnly: boolean;
  #closed = false;

  constructor(
    disk: SimulatedDisk,
    generation: number,
    path: string,
    inode: SimulatedInode,
    options: OpenFileOptions,
  ) {
    this.#disk = disk;
    this.#generation = generation;
    this.path = path;
    this.#inode = inode;
    this.direct = options.access === "direct";
    this.#readOnly = options.readOnly === true;
  }

  readInline(slab: Slab, start: number, length: number, offset: number): number {
    this.#requireOpen("read");
    const { faults } = this.#disk;
    if (this.direct || this.#disk.happens(faults.coldRead)) return -1;
    const left = Math.max(0, Math.min(length, this.#inode.cache.sizeBytes - offset));
    const short = left > 1 && this.#disk.happens(faults.shortRead);
    const count = short ? 1 + Math.floor(this.#disk.random.next() * (left - 1)) : left;
    this.#inode.cache.read(slab.bytes.subarray(start, start + count), offset);
    return count;
  }

  read(slab: Slab, start: number, length: number, offset: number): Promise<void> {
    return this.#later("read", () => {
      this.#requireAligned("read", start, length, offset);
      this.#disk.mayFail(this.#disk.faults.readError, "read", this.path);
      this.#inode.cache.read(slab.bytes.subarray(start, start + length), offset);
    });
  }

  write(pieces: readonly SlabPiece[], offset: number): Promise<void> {
    return this.#change("write", () => this.#writeSteps(pieces, offset), false);
  }

  writeDurable(pieces: readonly SlabPiece[], offset: number): Promise<void> {
    return this.#change("durable write", () => this.#writeSteps(pieces, offset), true);
  }

  writeInline(pieces: readonly SlabPiece[], offset: number): void {
    this.#requireWritable("write");
    this.#carryOut("write", this.#writeSteps(pieces, offset), false);
  }

  writeDurableInline(pieces: readonly SlabPiece[], offset: number): void {
    this.#requireWritable("durable write");
    this.#carryOut("durable write", this.#writeSteps(pieces, offset), true);
  }

  sync(): Promise<void> {
    return this.#sync(false);
  }

  syncWithTimes(): Promise<void> {
    return this.#sync(true);
  }

  #sync(withTimes: boolean): Promise<void> {
    const until = this.#disk.sequence;
    return this.#later("sync", () => {
      if (this.#disk.happens(this.#disk.faults.syncError)) {
        this.#disk.counters.faults += 1;
        this.#inode.lose(until, this.#disk.random.next() < 0.3, this.#disk.random);
        throw new FileStoreError("sync", this.path, "EIO");
      }
      this.#inode.flush(until);
      if (withTimes) this.#inode.keepTimes();
    });
  }

  writeBack(_offset: number, _length: number): Promise<void> {
    const until = this.#disk.sequence;
    return this.#later("write back", () => {
      // What is written early is a part that may survive a crash: the crash chooses among all parts anyway.
      if (!this.#disk.happens(this.#disk.faults.syncError)) return;
      this.#disk.counters.faults += 1;
      this.#inode.lose(until, this.#disk.random.next() < 0.3, this.#disk.random);
      throw new FileStoreError("write back", this.path, "EIO");
    });
  }

  applyAll(operations: readonly FileOperation[]): Promise<void> {
    return this.#change("apply", () => operations.map(stepOf), false);
  }

  allocate(offset: number, length: number): Promise<void> {
    return this.#change("allocate", () => [{ kind: "allocate", offset, length }], false);
  }

  truncate(sizeBytes: number): Promise<void> {
    return this.#change("truncate", () => [{ kind: "truncate", sizeBytes }], false);
  }

  nextData(offset: number): number {
    this.#requireOpen("seek");
    return this.#inode.cache.nextData(offset);
  }

  nextHole(offset: number): number {
    this.#requireOpen("seek");
    return this.#inode.cache.nextHole(offset);
  }

  facts(): Promise<FileFacts> {
    return this.#later("facts", () => this.#inode.facts());
  }

  lockAsImageWriter(): void {
    this.#requireOpen("lock");
    const holder = this.#inode.imageLockHolder;
    if (holder !== null && holder !== this) throw new FileStoreError("lock", this.path, "EAGAIN");
    this.#inode.imageLockHolder = this;
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#inode.imageLockHolder === this) this.#inode.imageLockHolder = null;
  }

  #writeSteps(pieces: readonly SlabPiece[], offset: number): Step[] {
    let at = offset;
    return pieces.map((piece) => {
      this.#requireAligned("write", piece.start, piece.length, at);
      const data = Uint8Array.from(piece.slab.bytes.subarray(piece.start, piece.start + piece.length));
      const step: Step = { kind: "write", data, offset: at };
      at += piece.length;
      return step;
    });
  }

  /** Steps are made when they are carried out, not when they were asked for: a process must leave its memory alone meanwhile. */
  #change(operation: string, steps: () => readonly Step[], durable: boolean): Promise<void> {
    return this.#later(
      operation,
      () => {
        this.#requireWritable(operation);
        this.#carryOut(operation, steps(), durable);
      },
      () => this.#carryOutPart(steps()),
    );
  }

  #carryOut(operation: string, steps: readonly Step[], durable: boolean): void {
    if (this.#disk.happens(this.#disk.faults.writeError)) {
      this.#disk.counters.faults += 1;
      this.#carryOutPart(steps);
      throw new FileStoreError(operation, this.path, "EIO");
    }
    for (const [index, step] of steps.entries()) {
      if (step.kind === "truncate" && step.sizeBytes < 0) {
        throw new FileStoreError(`${operation} truncate`, this.path, "EINVAL");
      }
      if (this.#missingBytes(step) + this.#disk.usedBytes > this.#disk.quotaBytes) {
        this.#carryOutPart(steps.slice(index, index + 1), true);
        throw new FileStoreError(operation, this.path, "ENOSPC");
      }
      this.#inode.take(step, this.#disk.nextSequence(), durable);
    }
  }

  /** What an interrupted or failed call leaves: the first steps and a part of the next, none of it synced. */
  #carryOutPart(steps: readonly Step[], withinQuota = false): void {
    const whole = Math.floor(this.#disk.random.next() * (steps.length + (withinQuota ? 0 : 1)));
    for (const step of steps.slice(0, whole)) this.#inode.take(step, this.#disk.nextSequence(), false);
    const torn = steps[whole];
    if (torn?.kind !== "write") return;
    const data = torn.data.subarray(0, Math.floor(this.#disk.random.next() * torn.data.length));
    const part: Step = { ...torn, data };
    if (this.#missingBytes(part) + this.#disk.usedBytes > this.#disk.quotaBytes) return;
    this.#inode.take(part, this.#disk.nextSequence(), false);
  }

  #missingBytes(step: Step): number {
    if (step.kind === "write") return this.#inode.cache.missingBytes(step.offset, step.data.length);
    if (step.kind === "punch" || step.kind === "truncate") return 0;
    return this.#inode.cache.missingBytes(step.offset, step.length);
  }

  #later<T>(operation: string, work: () => T, abandon?: () => void): Promise<T> {
    return this.#disk.later(
      this.#generation,
      () => {
        this.#requireOpen(operation);
        return work();
      },
      abandon,
    );
  }

  #requireOpen(operation: string): void {
    const alive = this.#disk.isAlive(this.#generation);
    if (this.#closed || !alive) throw new FileStoreError(operation, this.path, "EBADF");
  }

  #requireWritable(operation: string): void {
    this.#requireOpen(operation);
    if (this.#readOnly) throw new FileStoreError(operation, this.path, "EBADF");
  }

  #requireAligned(operation: string, start: number, length: number, offset: number): void {
    const aligned = start % blockBytes === 0 && length % blockBytes === 0 && offset % blockBytes === 0;
    if (this.direct && !aligned) throw new FileStoreError(operation, this.path, "EINVAL");
  }
}

function stepOf(operation: FileOperation): Step {
  if (operation.kind !== "write") return operation;
  const { slab, start, length } = operation.piece;
  return {
    kind: "write",
    data: Uint8Array.from(slab.bytes.subarray(start, start + length)),
    offset: operation.offset,
  };
}
