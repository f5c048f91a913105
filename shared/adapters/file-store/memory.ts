/*
 * The file store in memory: exact, without faults and without delays, for unit tests and as the reference in the contract
 * suite. Everything is durable at once. Built by tests; the simulated disk (simulated-disk.ts) is the one that fails.
 */
import { FileStoreError } from "#shared/domain/errors.ts";
import type {
  BlockFile,
  DirectoryLock,
  FileFacts,
  FileOperation,
  FileStore,
  FreeSpace,
  OpenFileOptions,
} from "#shared/ports/file-store.ts";
import type { Slab, SlabPiece } from "#shared/ports/slab.ts";
import { directoryOf, MemoryNames } from "./memory-names.ts";
import { SparseBytes } from "./sparse-bytes.ts";

interface Inode {
  readonly number: bigint;
  readonly content: SparseBytes;
  changedNs: bigint;
  imageLocked: boolean;
}

const totalBytes = 2 ** 50;
const blockBytes = 4096;

export class MemoryFileStore implements FileStore {
  readonly #names = new MemoryNames<Inode>();
  readonly #locked = new Set<string>();
  #tick = 0n;

  allocateSlab(bytes: number): Slab {
    return { bytes: Buffer.alloc(bytes), address: 0 };
  }

  shrinkSlab(slab: Slab): void {
    slab.bytes.fill(0);
  }

  async makeDirectory(path: string): Promise<void> {
    this.#names.makeDirectory(path);
  }

  async list(path: string): Promise<readonly string[]> {
    return this.#names.list(path);
  }

  async facts(path: string): Promise<FileFacts | null> {
    const inode = this.#names.files.get(path);
    return inode === undefined ? null : factsOfInode(inode);
  }

  async open(path: string, options: OpenFileOptions): Promise<BlockFile> {
    if (options.create === true && !this.#names.files.has(path)) this.#create(path);
    return new MemoryFile(path, this.#names.require("open", path), options, () => this.#now());
  }

  async readWhole(path: string): Promise<Buffer | null> {
    const inode = this.#names.files.get(path);
    if (inode === undefined) return null;
    const bytes = Buffer.alloc(inode.content.sizeBytes);
    inode.content.read(bytes, 0);
    return bytes;
  }

  async replaceWhole(path: string, content: Uint8Array): Promise<void> {
    this.#create(path).content.write(content, 0);
  }

  async rename(from: string, to: string): Promise<void> {
    this.#names.rename(from, to);
  }

  async remove(path: string): Promise<void> {
    this.#names.require("remove", path);
    this.#names.files.delete(path);
  }

  async removeTree(path: string): Promise<void> {
    this.#names.removeTree(path);
  }

  async syncDirectory(path: string): Promise<void> {
    this.#names.requireDirectory("sync directory", path);
  }

  async freeSpace(_path: string): Promise<FreeSpace> {
    let used = 0;
    for (const inode of this.#names.files.values()) used += inode.content.allocatedBytes;
    return { freeBytes: totalBytes - used, totalBytes };
  }

  async lockDirectory(path: string): Promise<DirectoryLock> {
    this.#names.requireDirectory("lock directory", path);
    if (this.#locked.has(path)) {
      throw new FileStoreError("lock directory", path, "EAGAIN", {
        hint: `Process ${process.pid} uses this data directory. Stop it first, or take another directory.`,
      });
    }
    this.#locked.add(path);
    return {
      release: async () => {
        this.#locked.delete(path);
      },
    };
  }

  async close(): Promise<void> {}

  #create(path: string): Inode {
    this.#names.requireDirectory("create", directoryOf(path));
    const inode = {
      number: this.#now(),
      content: new SparseBytes(),
      changedNs: this.#now(),
      imageLocked: false,
    };
    this.#names.files.set(path, inode);
    return inode;
  }

  /** A clock that never stands still: every change is a later one. */
  #now(): bigint {
    this.#tick += 1n;
    return this.#tick;
  }
}

function factsOfInode(inode: Inode): FileFacts {
  return {
    sizeBytes: inode.content.sizeBytes,
    allocatedBytes: inode.content.allocatedBytes,
    inode: inode.number,
    mtimeNs: inode.changedNs,
    ctimeNs: inode.changedNs,
  };
}

class MemoryFile implements BlockFile {
  readonly path: string;
  readonly direct: boolean;
  readonly #inode: Inode;
  readonly #readOnly: boolean;
  readonly #now: () => bigint;
  #locks = false;
  #closed = false;

  constructor(path: string, inode: Inode, options: OpenFileOptions, now: () => bigint) {
    this.path = path;
    this.direct = options.access === "direct";
    this.#inode = inode;
    this.#readOnly = options.readOnly === true;
    this.#now = now;
  }

  readInline(slab: Slab, start: number, length: number, offset: number): number {
    this.#requireOpen("read");
    if (this.direct) return -1;
    const count = Math.max(0, Math.min(length, this.#inode.content.sizeBytes - offset));
    this.#inode.content.read(slab.bytes.subarray(start, start + count), offset);
    return count;
  }

  async read(slab: Slab, start: number, length: number, offset: number): Promise<void> {
    this.#requireOpen("read");
    this.#requireAligned("read", start, length, offset);
    this.#inode.content.read(slab.bytes.subarray(start, start + length), offset);
  }

  async write(pieces: readonly SlabPiece[], offset: number): Promise<void> {
    this.writeInline(pieces, offset);
  }

  async writeDurable(pieces: readonly SlabPiece[], offset: number): Promise<void> {
    this.writeInline(pieces, offset);
  }

  writeDurableInline(pieces: readonly SlabPiece[], offset: number): void {
    this.writeInline(pieces, offset);
  }

  writeInline(pieces: readonly SlabPiece[], offset: number): void {
    this.#requireWritable("write");
    let at = offset;
    for (const piece of pieces) {
      this.#requireAligned("write", piece.start, piece.length, at);
      this.#inode.content.write(piece.slab.bytes.subarray(piece.start, piece.start + piece.length), at);
      at += piece.length;
    }
    this.#changed();
  }

  async sync(): Promise<void> {
    this.#requireOpen("sync");
  }

  syncWithTimes(): Promise<void> {
    return this.sync();
  }

  async writeBack(_offset: number, _length: number): Promise<void> {
    this.#requireOpen("write back");
  }

  async applyAll(operations: readonly FileOperation[]): Promise<void> {
    this.#requireWritable("apply");
    this.#changed();
    for (const operation of operations) {
      if (operation.kind === "truncate" && operation.sizeBytes < 0) {
        throw new FileStoreError("apply truncate", this.path, "EINVAL");
      }
      applyOperation(this.#inode.content, operation);
    }
  }

  async allocate(offset: number, length: number): Promise<void> {
    this.#requireWritable("allocate");
    this.#inode.content.allocate(offset, length);
  }

  async truncate(sizeBytes: number): Promise<void> {
    this.#requireWritable("truncate");
    this.#inode.content.truncate(sizeBytes);
    this.#changed();
  }

  nextData(offset: number): number {
    this.#requireOpen("seek");
    return this.#inode.content.nextData(offset);
  }

  nextHole(offset: number): number {
    this.#requireOpen("seek");
    return this.#inode.content.nextHole(offset);
  }

  async facts(): Promise<FileFacts> {
    this.#requireOpen("facts");
    return factsOfInode(this.#inode);
  }

  lockAsImageWriter(): void {
    this.#requireOpen("lock");
    if (this.#inode.imageLocked && !this.#locks) throw new FileStoreError("lock", this.path, "EAGAIN");
    this.#inode.imageLocked = true;
    this.#locks = true;
  }

  async close(): Promise<void> {
    if (this.#locks) this.#inode.imageLocked = false;
    this.#locks = false;
    this.#closed = true;
  }

  #changed(): void {
    this.#inode.changedNs = this.#now();
  }

  #requireOpen(operation: string): void {
    if (this.#closed) throw new FileStoreError(operation, this.path, "EBADF");
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

function applyOperation(content: SparseBytes, operation: FileOperation): void {
  switch (operation.kind) {
    case "write": {
      const { slab, start, length } = operation.piece;
      content.write(slab.bytes.subarray(start, start + length), operation.offset);
      break;
    }
    case "punch":
      content.punch(operation.offset, operation.length);
      break;
    case "zero":
      content.zero(operation.offset, operation.length);
      break;
    case "truncate":
      content.truncate(operation.sizeBytes);
      break;
  }
}
