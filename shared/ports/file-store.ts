/*
 * The port beneath log, image, checkpoint and catalogue: files of one storage machine and their exact durability rules.
 * Adapters: adapters/file-store/native.ts (Linux, by koffi), memory.ts, simulated-disk.ts (faults, crashes) and the
 * decorator dropping-unsynced.ts. Everything above is written once and runs on all of them.
 *
 * Offsets and lengths are bytes, safe integers. Every failure is a FileStoreError (shared/domain/errors.ts) with the
 * errno name, the path and the operation.
 */
import type { Slab, SlabPiece } from "./slab.ts";

export interface FileFacts {
  readonly sizeBytes: number;
  /** Bytes that the file system has allocated for the file (st_blocks * 512). */
  readonly allocatedBytes: number;
  readonly inode: bigint;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
}

export interface FreeSpace {
  /** Bytes that this process may still use. */
  readonly freeBytes: number;
  readonly totalBytes: number;
}

/** One step of an ordered apply; see BlockFile.applyAll. */
export type FileOperation =
  | { readonly kind: "write"; readonly piece: SlabPiece; readonly offset: number }
  /** Deallocates: reads as zero afterwards. The file's size stays. */
  | { readonly kind: "punch"; readonly offset: number; readonly length: number }
  /** Reads as zero afterwards, blocks stay (or become) allocated. The file's size stays. */
  | { readonly kind: "zero"; readonly offset: number; readonly length: number }
  | { readonly kind: "truncate"; readonly sizeBytes: number };

export interface OpenFileOptions {
  readonly create?: boolean;
  readonly readOnly?: boolean;
  /**
   * "buffered": through the page cache. "direct": O_DIRECT where the file system can (else buffered): offsets, lengths and
   * slab starts of every read and write are then multiples of 4096.
   */
  readonly access: "buffered" | "direct";
}

export interface BlockFile {
  readonly path: string;
  /** True where O_DIRECT is really in use. */
  readonly direct: boolean;

  /**
   * Reads what is in the page cache without waiting, on the caller's thread: returns the bytes read (may be fewer than
   * asked, 0 at the end of the file), or -1 where a disk access would be needed. Never blocks.
   */
  readInline(slab: Slab, start: number, length: number, offset: number): number;
  /** Reads exactly `length` bytes; bytes past the end of the file read as zero. On another thread; cold pages may take long. */
  read(slab: Slab, start: number, length: number, offset: number): Promise<void>;

  /** Gathered write of all pieces, contiguous from `offset`; not durable until sync(). A short write is continued. */
  write(pieces: readonly SlabPiece[], offset: number): Promise<void>;
  /** The same on the caller's thread, for small writes where the caller measured that it may. */
  writeInline(pieces: readonly SlabPiece[], offset: number): void;
  /** write + data sync as one operation: durable when it resolves. On failure nothing is known of these ranges. */
  writeDurable(pieces: readonly SlabPiece[], offset: number): Promise<void>;
  /** The same on the caller's thread. */
  writeDurableInline(pieces: readonly SlabPiece[], offset: number): void;
  /** fdatasync: every write that had returned before is durable when it resolves. After a failure the dirty pages are lost. */
  sync(): Promise<void>;
  /** fsync: sync(), and the times that facts() reports are durable too. For a clean detach, which records them. */
  syncWithTimes(): Promise<void>;
  /**
   * Writes dirty pages of the range out and resolves when the device has taken them (sync_file_range). Makes nothing durable:
   * that is sync(), which then finds less to do. A failure means what a failed sync means.
   */
  writeBack(offset: number, length: number): Promise<void>;

  /**
   * Applies operations in order, on another thread (the image thread). Resolves when all are in the page cache. Rejects at
   * the first failure; the ones before are applied, the failed one perhaps in part, none after it.
   */
  applyAll(operations: readonly FileOperation[]): Promise<void>;

  /** Preallocates blocks without changing the size. ENOSPC when there is no room. */
  allocate(offset: number, length: number): Promise<void>;
  truncate(sizeBytes: number): Promise<void>;
  /** First byte at or after `offset` that lies in an allocated range, or -1 when none does. Inline, 1-2 µs. */
  nextData(offset: number): number;
  /** First byte at or after `offset` that lies in a hole; the end of the file counts as a hole. */
  nextHole(offset: number): number;
  facts(): Promise<FileFacts>;

  /**
   * Takes qemu's image lock bytes (OFD locks 100+n "in use", 200+n "not shared") as a writer that shares nothing but
   * consistent reads by nobody: qemu-img and qemu refuse the file meanwhile. Rejects with FileStoreError EAGAIN when
   * another process holds conflicting ones. Released by close().
   */
  lockAsImageWriter(): void;
  close(): Promise<void>;
}

export interface DirectoryLock {
  release(): Promise<void>;
}

export interface FileStore {
  /** Page-aligned memory that this store's files can read and write directly. Never given back to the system but by shrink(). */
  allocateSlab(bytes: number): Slab;
  /** Tells the system that the slab's content is not needed now (its memory may be reclaimed; the slab stays usable). */
  shrinkSlab(slab: Slab): void;

  /** Creates the directory and its parents; durable when it resolves. */
  makeDirectory(path: string): Promise<void>;
  /** Names in the directory, sorted; [] where it does not exist. */
  list(path: string): Promise<readonly string[]>;
  facts(path: string): Promise<FileFacts | null>;
  /** A new file's name is durable only after syncDirectory of its directory. */
  open(path: string, options: OpenFileOptions): Promise<BlockFile>;
  /** Whole small file, or null where it does not exist. */
  readWhole(path: string): Promise<Buffer | null>;
  /** Replaces (or creates) a small file atomically: after a crash it holds the old or the new content. Durable when it resolves. */
  replaceWhole(path: string, content: Uint8Array): Promise<void>;
  /** Renames; durable only after syncDirectory of both directories. */
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Removes a directory and all in it. */
  removeTree(path: string): Promise<void>;
  syncDirectory(path: string): Promise<void>;
  freeSpace(path: string): Promise<FreeSpace>;
  /** Exclusive lock on a directory by a lock file in it; rejects with EAGAIN (and the holder's pid in the hint) while held. */
  lockDirectory(path: string): Promise<DirectoryLock>;
  close(): Promise<void>;
}
