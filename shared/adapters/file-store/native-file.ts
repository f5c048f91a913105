/*
 * One open file of the native store: reads from the page cache on the caller's thread, cold reads and durable writes on the
 * thread pool, applies on the image thread. Owns the descriptor: it lives until close() and the last call under way. Called
 * by the log, the replica and the catalogue through ports/file-store.ts; the kernel comes next.
 */
import { close as closeFd, fstat, fstatSync } from "node:fs";
import { promisify } from "node:util";
import { FileStoreError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import type { BlockFile, FileFacts, FileOperation } from "#shared/ports/file-store.ts";
import type { Slab, SlabPiece } from "#shared/ports/slab.ts";
import { factsOf } from "./file-facts.ts";
import type { ImageThread } from "./image-thread.ts";
import { errno, errnoName, lastErrno, libc, linux } from "./libc.ts";
import { type IovecBlock, returnIovecs, takeIovecs } from "./native-memory.ts";
import { lockImageBytes } from "./ofd-lock.ts";
import type { ColdRead, ThreadGate } from "./thread-gate.ts";

const closeDescriptor = promisify(closeFd);
const statDescriptor = promisify(fstat);

const inlineVector = takeIovecs();

/** A refused inline read of at most so much has begun to fetch all of it: half of the kernel's usual readahead. */
const askedBytesMax = 64 * 1024;

export interface NativeFileParts {
  readonly path: string;
  readonly fd: number;
  readonly direct: boolean;
  readonly imageThread: ImageThread;
  readonly coldReads: ThreadGate;
}

export class NativeFile implements BlockFile {
  readonly path: string;
  readonly direct: boolean;
  readonly #fd: number;
  readonly #imageThread: ImageThread;
  readonly #coldReads: ThreadGate;
  /** False after the file system said that it can't tell cached from cold (RWF_NOWAIT): every read goes to a thread. */
  #readsInline: boolean;
  #underWay = 0;
  #closed = false;
  #idle: (() => void) | null = null;

  constructor(parts: NativeFileParts) {
    this.path = parts.path;
    this.direct = parts.direct;
    this.#fd = parts.fd;
    this.#imageThread = parts.imageThread;
    this.#coldReads = parts.coldReads;
    this.#readsInline = !parts.direct;
  }

  readInline(slab: Slab, start: number, length: number, offset: number): number {
    if (!this.#readsInline) return -1;
    if (this.#closed) throw this.#error("read", errno.EBADF);
    inlineVector.fillOne(slab.address + start, length);
    const count = libc.preadv2(this.#fd, inlineVector.address, 1, offset, linux.RWF_NOWAIT);
    if (count >= 0) return count;
    if (lastErrno() === errno.EOPNOTSUPP) this.#readsInline = false;
    // Not in memory; or what is wrong is for read() to say, which whoever got -1 asks next.
    return -1;
  }

  read(slab: Slab, start: number, length: number, offset: number): Promise<void> {
    return this.#call((resolve, reject) => {
      const read: ColdRead = {
        askable: this.#readsInline && length <= askedBytesMax,
        ask: () => {
          if (this.#closed || !this.#hasCome(slab, start, length, offset)) return false;
          resolve();
          return true;
        },
        start: () =>
          this.#readOn(slab, start, length, offset, (error) => {
            if (error === null) resolve();
            else reject(error);
            this.#coldReads.leave(read);
          }),
      };
      this.#coldReads.enter(read);
    });
  }

  /** What goes wrong here is for the thread to say. */
  #hasCome(slab: Slab, start: number, length: number, offset: number): boolean {
    inlineVector.fillOne(slab.address + start, length);
    return libc.preadv2(this.#fd, inlineVector.address, 1, offset, linux.RWF_NOWAIT) === length;
  }

  /** Reads until all is there or the file ends; the part past the end is zero. */
  #readOn(
    slab: Slab,
    start: number,
    length: number,
    offset: number,
    done: (error: FileStoreError | null) => void,
  ): void {
    libc.pread.async(this.#fd, slab.address + start, length, offset, (_error, count) => {
      if (count < 0) {
        const failure = lastErrno();
        if (failure === errno.EINTR) this.#readOn(slab, start, length, offset, done);
        else done(this.#error("read", failure));
        return;
      }
      // A direct read stops within a block only at the end of the file.
      const ended = count === 0 || (this.direct && count % 512 !== 0);
      if (ended) slab.bytes.fill(0, start + count, start + length);
      if (ended || count === length) done(null);
      else this.#readOn(slab, start + count, length - count, offset + count, done);
    });
  }

  write(pieces: readonly SlabPiece[], offset: number): Promise<void> {
    return this.#writeOnThread("write", pieces, offset, 0);
  }

  writeDurable(pieces: readonly SlabPiece[], offset: number): Promise<void> {
    return this.#writeOnThread("durable write", pieces, offset, linux.RWF_DSYNC);
  }

  writeInline(pieces: readonly SlabPiece[], offset: number): void {
    this.#writeHere("write", pieces, offset, 0);
  }

  writeDurableInline(pieces: readonly SlabPiece[], offset: number): void {
    this.#writeHere("durable write", pieces, offset, linux.RWF_DSYNC);
  }

  #writeHere(operation: string, pieces: readonly SlabPiece[], offset: number, flags: number): void {
    if (this.#closed) throw this.#error(operation, errno.EBADF);
    for (let written = 0; ; ) {
      inlineVector.fill(pieces, written);
      if (inlineVector.byteLength === 0) return;
      const at = offset + written;
      const count = libc.pwritev2(this.#fd, inlineVector.address, inlineVector.count, at, flags);
      if (count > 0) written += count;
      else {
        const failure = count === 0 ? errno.EIO : lastErrno();
        if (failure !== errno.EINTR) throw this.#error(operation, failure);
      }
    }
  }

  #writeOnThread(
    operation: string,
    pieces: readonly SlabPiece[],
    offset: number,
    flags: number,
  ): Promise<void> {
    return this.#call((resolve, reject) => {
      const vector = takeIovecs();
      this.#writeOn(vector, pieces, offset, flags, 0, (failure) => {
        returnIovecs(vector);
        if (failure === 0) resolve();
        else reject(this.#error(operation, failure));
      });
    });
  }

  /** One call of the gathered write and, after a short one, the next; `done` gets 0 or an errno number. */
  #writeOn(
    vector: IovecBlock,
    pieces: readonly SlabPiece[],
    offset: number,
    flags: number,
    written: number,
    done: (failure: number) => void,
  ): void {
    vector.fill(pieces, written);
    if (vector.byteLength === 0) {
      done(0);
      return;
    }
    const at = offset + written;
    libc.pwritev2.async(this.#fd, vector.address, vector.count, at, flags, (_error, count) => {
      const failure = count < 0 ? lastErrno() : 0;
      if (count === 0) done(errno.EIO);
      else if (count > 0) this.#writeOn(vector, pieces, offset, flags, written + count, done);
      else if (failure === errno.EINTR) this.#writeOn(vector, pieces, offset, flags, written, done);
      else done(failure);
    });
  }

  sync(): Promise<void> {
    return this.#callOnce("sync", (done) => libc.fdatasync.async(this.#fd, done));
  }

  syncWithTimes(): Promise<void> {
    return this.#callOnce("sync", (done) => libc.fsync.async(this.#fd, done));
  }

  writeBack(offset: number, length: number): Promise<void> {
    const flags = linux.SYNC_FILE_RANGE_WRITE_AND_WAIT;
    return this.#callOnce("write back", (done) =>
      libc.syncFileRange.async(this.#fd, offset, length, flags, done),
    );
  }

  allocate(offset: number, length: number): Promise<void> {
    const mode = linux.FALLOC_KEEP_SIZE;
    return this.#callOnce("allocate", (done) => libc.fallocate.async(this.#fd, mode, offset, length, done));
  }

  truncate(sizeBytes: number): Promise<void> {
    return this.#callOnce("truncate", (done) => libc.ftruncate.async(this.#fd, sizeBytes, done));
  }

  applyAll(operations: readonly FileOperation[]): Promise<void> {
    if (operations.length === 0) return Promise.resolve();
    return this.#call((resolve, reject) => {
      this.#imageThread.run(this.#fd, operations, (failure, index) => {
        if (failure === 0) resolve();
        else reject(this.#error(`apply ${operations[index]?.kind ?? "operations"}`, failure));
      });
    });
  }

  nextData(offset: number): number {
    const found = this.#seek(offset, linux.SEEK_DATA);
    // Without support for holes every byte of the file counts as data.
    return found === "unsupported" ? (offset < fstatSync(this.#fd).size ? offset : -1) : found;
  }

  nextHole(offset: number): number {
    const found = this.#seek(offset, linux.SEEK_HOLE);
    if (found === "unsupported") return Math.max(offset, fstatSync(this.#fd).size);
    return found === -1 ? offset : found;
  }

  #seek(offset: number, whence: number): number | "unsupported" {
    if (this.#closed) throw this.#error("seek", errno.EBADF);
    const found = libc.lseek(this.#fd, offset, whence);
    if (found >= 0) return found;
    const failure = lastErrno();
    if (failure === errno.ENXIO) return -1;
    if (failure === errno.EINVAL || failure === errno.EOPNOTSUPP) return "unsupported";
    throw this.#error("seek", failure);
  }

  async facts(): Promise<FileFacts> {
    if (this.#closed) throw this.#error("facts", errno.EBADF);
    return factsOf(await statDescriptor(this.#fd, { bigint: true }));
  }

  lockAsImageWriter(): void {
    if (this.#closed) throw this.#error("lock", errno.EBADF);
    const failure = lockImageBytes(this.#fd);
    if (failure === 0) return;
    throw new FileStoreError("lock", this.path, errnoName(failure), {
      hint: "Another process (qemu, qemu-img, qemu-nbd) has this image open. Close it there first.",
    });
  }

  /** Waits for calls under way, then closes; the locks go with the descriptor. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#underWay > 0) {
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
      });
    }
    await closeDescriptor(this.#fd);
  }

  /** A call on another thread: the descriptor stays open until it has ended. */
  #call(start: (resolve: () => void, reject: (error: FileStoreError) => void) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#closed) {
        reject(this.#error("use", errno.EBADF));
        return;
      }
      this.#underWay += 1;
      start(
        () => {
          this.#end();
          resolve();
        },
        (error) => {
          this.#end();
          reject(error);
        },
      );
    });
  }

  /** One system call that is repeated when a signal interrupts it. */
  #callOnce(
    operation: string,
    invoke: (done: (error: unknown, result: number) => void) => void,
  ): Promise<void> {
    return this.#call((resolve, reject) => {
      const attempt = (): void =>
        invoke((_error, result) => {
          const failure = result < 0 ? lastErrno() : 0;
          if (failure === 0) resolve();
          else if (failure === errno.EINTR) attempt();
          else reject(this.#error(operation, failure));
        });
      attempt();
    });
  }

  #end(): void {
    this.#underWay -= 1;
    invariant(this.#underWay >= 0, "every call under way ends once");
    if (this.#underWay === 0 && this.#idle !== null) this.#idle();
  }

  #error(operation: string, failure: number): FileStoreError {
    return new FileStoreError(operation, this.path, errnoName(failure));
  }
}
