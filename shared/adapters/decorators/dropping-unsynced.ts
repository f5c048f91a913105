/*
 * A FileStore that makes kill -9 as bad as a power cut: unsynced writes, creates, renames and removes stay in process memory
 * and go to the store below only when they are synced. For crash tests of the real process (VARVE_TEST_DROP_UNSYNCED=1, put
 * around the native store where the process is wired); no use in production. Bytes: unsynced-file.ts, names: unsynced-names.ts.
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
import { UnsyncedBytes } from "./unsynced-bytes.ts";
import { type SharedFile, UnsyncedFile } from "./unsynced-file.ts";
import { UnsyncedNames } from "./unsynced-names.ts";

const passDownBytes = 1024 * 1024;

export class DroppingUnsyncedStore implements FileStore {
  readonly #below: FileStore;
  readonly #hiddenDirectory: string;
  readonly #names: UnsyncedNames;
  /** By inode, so that a file that was renamed or is open twice is one file. */
  readonly #files = new Map<bigint, SharedFile>();
  #slab: Slab | null = null;
  #ready: Promise<void> | null = null;

  /** `hiddenDirectory`: on the same file system as the files, for those whose names are not durable yet. */
  constructor(below: FileStore, hiddenDirectory: string) {
    this.#below = below;
    this.#hiddenDirectory = hiddenDirectory;
    this.#names = new UnsyncedNames(below, hiddenDirectory);
  }

  allocateSlab(bytes: number): Slab {
    return this.#below.allocateSlab(bytes);
  }

  shrinkSlab(slab: Slab): void {
    this.#below.shrinkSlab(slab);
  }

  makeDirectory(path: string): Promise<void> {
    return this.#below.makeDirectory(path);
  }

  list(path: string): Promise<readonly string[]> {
    return this.#names.list(path);
  }

  async facts(path: string): Promise<FileFacts | null> {
    const below = this.#names.below(path);
    const facts = below === null ? null : await this.#below.facts(below);
    if (facts === null) return null;
    const shared = this.#files.get(facts.inode);
    return shared === undefined || shared.bytes.empty
      ? facts
      : { ...facts, sizeBytes: shared.bytes.sizeBytes };
  }

  async open(path: string, options: OpenFileOptions): Promise<BlockFile> {
    const known = this.#names.below(path);
    const exists = known !== null && (await this.#below.facts(known)) !== null;
    if (exists) return this.#opened(path, await this.#below.open(known, options));
    if (options.create !== true) throw new FileStoreError("open", path, "ENOENT");
    await this.#hide();
    const hidden = this.#names.hiddenName();
    const file = await this.#below.open(hidden, options);
    this.#names.link(path, hidden);
    return this.#opened(path, file);
  }

  async readWhole(path: string): Promise<Buffer | null> {
    const below = this.#names.below(path);
    const facts = below === null ? null : await this.#below.facts(below);
    const bytes = below === null || facts === null ? null : await this.#below.readWhole(below);
    const unsynced = facts === null ? undefined : this.#files.get(facts.inode)?.bytes;
    if (bytes === null || unsynced === undefined || unsynced.empty) return bytes;
    const whole = Buffer.alloc(unsynced.sizeBytes);
    bytes.copy(whole);
    unsynced.cover(whole, 0);
    return whole;
  }

  async replaceWhole(path: string, content: Uint8Array): Promise<void> {
    await this.#below.replaceWhole(path, content);
    this.#names.forget(path);
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#require("rename", from);
    this.#names.rename(from, to);
  }

  async remove(path: string): Promise<void> {
    await this.#require("remove", path);
    this.#names.unlink(path);
  }

  async removeTree(path: string): Promise<void> {
    await this.#below.removeTree(path);
    this.#names.forget(path);
  }

  syncDirectory(path: string): Promise<void> {
    return this.#names.syncDirectory(path);
  }

  freeSpace(path: string): Promise<FreeSpace> {
    return this.#below.freeSpace(path);
  }

  lockDirectory(path: string): Promise<DirectoryLock> {
    return this.#below.lockDirectory(path);
  }

  async close(): Promise<void> {
    if (this.#ready !== null) await this.#below.removeTree(this.#hiddenDirectory);
    await this.#below.close();
  }

  async #require(operation: string, path: string): Promise<void> {
    if ((await this.facts(path)) === null) throw new FileStoreError(operation, path, "ENOENT");
  }

  /** The hidden directory, emptied of what a killed process left. */
  #hide(): Promise<void> {
    this.#ready ??= this.#below
      .removeTree(this.#hiddenDirectory)
      .then(() => this.#below.makeDirectory(this.#hiddenDirectory));
    return this.#ready;
  }

  async #opened(path: string, below: BlockFile): Promise<BlockFile> {
    const { inode, sizeBytes } = await below.facts();
    let shared = this.#files.get(inode);
    if (shared === undefined) {
      shared = { bytes: new UnsyncedBytes(sizeBytes), belowBytes: sizeBytes, lastSync: Promise.resolve() };
      this.#files.set(inode, shared);
    }
    return new UnsyncedFile(path, below, shared, () => (this.#slab ??= this.allocateSlab(passDownBytes)));
  }
}
