/*
 * The FileStore of one simulated process: names, small files and locks of the simulated disk. Made by SimulatedDisk.store();
 * after that disk's next crash or kill no call is heard of again: a dead process hears nothing.
 */
import { FileStoreError } from "#shared/domain/errors.ts";
import type {
  BlockFile,
  DirectoryLock,
  FileFacts,
  FileStore,
  FreeSpace,
  OpenFileOptions,
} from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { directoryOf } from "./memory-names.ts";
import type { SimulatedDisk } from "./simulated-disk.ts";
import { SimulatedFile } from "./simulated-file.ts";

export class SimulatedFileStore implements FileStore {
  readonly #disk: SimulatedDisk;
  readonly #generation: number;

  constructor(disk: SimulatedDisk, generation: number) {
    this.#disk = disk;
    this.#generation = generation;
  }

  allocateSlab(bytes: number): Slab {
    return { bytes: Buffer.alloc(bytes), address: 0 };
  }

  shrinkSlab(slab: Slab): void {
    slab.bytes.fill(0);
  }

  makeDirectory(path: string): Promise<void> {
    return this.#changeNames("make directory", path, () => this.#disk.names.makeDirectory(path));
  }

  list(path: string): Promise<readonly string[]> {
    return this.#later(() => this.#disk.names.seen.list(path));
  }

  facts(path: string): Promise<FileFacts | null> {
    return this.#later(() => this.#disk.names.seen.files.get(path)?.facts() ?? null);
  }

  open(path: string, options: OpenFileOptions): Promise<BlockFile> {
    return this.#later(() => {
      const known = this.#disk.names.seen.files.get(path);
      if (known === undefined && options.create === true) {
        this.#disk.mayFail(this.#disk.faults.nameError, "create", path);
        this.#disk.names.seen.requireDirectory("create", directoryOf(path));
        this.#disk.names.link(path, this.#disk.newInode());
      }
      const inode = this.#disk.names.seen.require("open", path);
      return new SimulatedFile(this.#disk, this.#generation, path, inode, options);
    });
  }

  readWhole(path: string): Promise<Buffer | null> {
    return this.#later(() => {
      const inode = this.#disk.names.seen.files.get(path);
      if (inode === undefined) return null;
      this.#disk.mayFail(this.#disk.faults.readError, "read", path);
      const bytes = Buffer.alloc(inode.cache.sizeBytes);
      inode.cache.read(bytes, 0);
      return bytes;
    });
  }

  replaceWhole(path: string, content: Uint8Array): Promise<void> {
    const copy = Uint8Array.from(content);
    return this.#changeNames(
      "replace",
      path,
      () => {
        if (this.#disk.usedBytes + copy.length > this.#disk.quotaBytes) {
          throw new FileStoreError("replace", path, "ENOSPC");
        }
        this.#replace(path, copy);
      },
      // A crash in the middle leaves the old content or the new.
      () => {
        if (this.#disk.names.seen.directories.has(directoryOf(path)) && this.#disk.random.next() < 0.5) {
          this.#replace(path, copy);
        }
      },
    );
  }

  rename(from: string, to: string): Promise<void> {
    return this.#changeNames("rename", from, () => this.#disk.names.rename(from, to));
  }

  remove(path: string): Promise<void> {
    return this.#changeNames("remove", path, () => this.#disk.names.unlink(path));
  }

  removeTree(path: string): Promise<void> {
    return this.#changeNames("remove tree", path, () => this.#disk.names.removeTree(path));
  }

  syncDirectory(path: string): Promise<void> {
    return this.#changeNames("sync directory", path, () => this.#disk.names.syncDirectory(path));
  }

  freeSpace(_path: string): Promise<FreeSpace> {
    return this.#later(() => ({
      freeBytes: Math.max(0, this.#disk.quotaBytes - this.#disk.usedBytes),
      totalBytes: this.#disk.quotaBytes,
    }));
  }

  lockDirectory(path: string): Promise<DirectoryLock> {
    return this.#later(() => {
      this.#disk.names.seen.requireDirectory("lock directory", path);
      const { lockedDirectories } = this.#disk;
      if (lockedDirectories.has(path)) {
        throw new FileStoreError("lock directory", path, "EAGAIN", {
          hint: "Process 1 uses this data directory. Stop it first, or take another directory.",
        });
      }
      lockedDirectories.add(path);
      return {
        release: async () => {
          if (this.#disk.isAlive(this.#generation)) lockedDirectories.delete(path);
        },
      };
    });
  }

  async close(): Promise<void> {}

  #replace(path: string, content: Uint8Array): void {
    this.#disk.names.seen.requireDirectory("replace", directoryOf(path));
    this.#disk.forgetInode(this.#disk.names.seen.files.get(path));
    const inode = this.#disk.newInode();
    inode.take({ kind: "write", data: content, offset: 0 }, this.#disk.nextSequence(), true);
    this.#disk.names.replace(path, inode);
  }

  #changeNames(operation: string, path: string, work: () => void, abandon?: () => void): Promise<void> {
    return this.#later(() => {
      this.#disk.mayFail(this.#disk.faults.nameError, operation, path);
      work();
    }, abandon);
  }

  #later<T>(work: () => T, abandon?: () => void): Promise<T> {
    return this.#disk.later(this.#generation, work, abandon);
  }
}
