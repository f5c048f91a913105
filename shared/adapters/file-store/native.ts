/*
 * The file store on Linux: every file of log, image, checkpoint and catalogue goes through here. Owns the image thread and
 * the bound on cold reads; names, directories and small files go by Node's fs on the thread pool, data by native-file.ts.
 * Built once per process by the shell and by tests. Contract: ports/file-store.ts, test/contract/file-store.contract.ts.
 */
import { constants, open as openFd } from "node:fs";
import * as fs from "node:fs/promises";
import { dirname } from "node:path";
import { promisify } from "node:util";
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
import { takeDirectoryLock } from "./directory-lock.ts";
import { factsOf } from "./file-facts.ts";
import { ImageThread } from "./image-thread.ts";
import { NativeFile } from "./native-file.ts";
import { dropPages, mapSlab } from "./native-memory.ts";
import { coldReadWidth, ThreadGate } from "./thread-gate.ts";

const openDescriptor = promisify(openFd) as (path: string, flags: number, mode: number) => Promise<number>;

export class NativeFileStore implements FileStore {
  readonly #imageThread = new ImageThread();
  readonly #coldReads = new ThreadGate(coldReadWidth(process.env["UV_THREADPOOL_SIZE"]));
  /** Replacements of one path follow each other, because they share a temporary name. */
  readonly #replacing = new Map<string, Promise<void>>();

  allocateSlab(bytes: number): Slab {
    return mapSlab(bytes);
  }

  shrinkSlab(slab: Slab): void {
    dropPages(slab);
  }

  async makeDirectory(path: string): Promise<void> {
    const first = await attempt("make directory", path, () => makeWithParents(path));
    if (first === undefined) return;
    // Every new name is made durable in its parent, from the deepest up.
    for (let made = path; ; made = dirname(made)) {
      await this.syncDirectory(dirname(made));
      if (made === first || made === dirname(made)) return;
    }
  }

  async list(path: string): Promise<readonly string[]> {
    const names = await orNull(attempt("list", path, () => fs.readdir(path)));
    return (names ?? []).sort();
  }

  async facts(path: string): Promise<FileFacts | null> {
    const stats = await orNull(attempt("facts", path, () => fs.stat(path, { bigint: true })));
    return stats === null ? null : factsOf(stats);
  }

  async open(path: string, options: OpenFileOptions): Promise<BlockFile> {
    const access = options.readOnly === true ? constants.O_RDONLY : constants.O_RDWR;
    const flags = access | (options.create === true ? constants.O_CREAT : 0);
    const { fd, direct } = await attempt("open", path, () => openFor(path, flags, options.access));
    return new NativeFile({ path, fd, direct, imageThread: this.#imageThread, coldReads: this.#coldReads });
  }

  readWhole(path: string): Promise<Buffer | null> {
    return orNull(attempt("read", path, () => fs.readFile(path)));
  }

  async replaceWhole(path: string, content: Uint8Array): Promise<void> {
    const before = this.#replacing.get(path) ?? Promise.resolve();
    const replaced = before.then(() => this.#replace(path, content));
    const settled = replaced.catch(() => undefined);
    this.#replacing.set(path, settled);
    try {
      await replaced;
    } finally {
      if (this.#replacing.get(path) === settled) this.#replacing.delete(path);
    }
  }

  async #replace(path: string, content: Uint8Array): Promise<void> {
    const temporary = `${path}.new`;
    await attempt("replace", path, async () => {
      const file = await fs.open(temporary, "w", 0o600);
      try {
        await file.writeFile(content);
        await file.sync();
      } finally {
        await file.close();
      }
      await fs.rename(temporary, path);
    });
    await this.syncDirectory(dirname(path));
  }

  rename(from: string, to: string): Promise<void> {
    return attempt("rename", from, () => fs.rename(from, to));
  }

  remove(path: string): Promise<void> {
    return attempt("remove", path, () => fs.unlink(path));
  }

  removeTree(path: string): Promise<void> {
    return attempt("remove tree", path, () => fs.rm(path, { recursive: true, force: true }));
  }

  syncDirectory(path: string): Promise<void> {
    return attempt("sync directory", path, async () => {
      const directory = await fs.open(path, constants.O_RDONLY | constants.O_DIRECTORY);
      try {
        await directory.sync();
      } finally {
        await directory.close();
      }
    });
  }

  async freeSpace(path: string): Promise<FreeSpace> {
    const space = await attempt("free space", path, () => fs.statfs(path));
    return { freeBytes: space.bavail * space.bsize, totalBytes: space.blocks * space.bsize };
  }

  lockDirectory(path: string): Promise<DirectoryLock> {
    return attempt("lock directory", path, () => takeDirectoryLock(path));
  }

  close(): Promise<void> {
    return this.#imageThread.close();
  }
}

/** O_DIRECT is refused at open (EINVAL) by file systems without it, tmpfs before Linux 6.6 for one: those go buffered. */
async function openFor(
  path: string,
  flags: number,
  access: OpenFileOptions["access"],
): Promise<{ fd: number; direct: boolean }> {
  if (access === "direct") {
    try {
      return { fd: await openDescriptor(path, flags | constants.O_DIRECT, 0o600), direct: true };
    } catch (error) {
      if (codeOf(error) !== "EINVAL") throw error;
    }
  }
  return { fd: await openDescriptor(path, flags, 0o600), direct: false };
}

/**
 * The first directory that had to be made, or undefined. Not Node's own recursion: where a parent is there and takes no directories
 * (/proc, a file system of keys), that one tries for ever.
 */
async function makeWithParents(path: string): Promise<string | undefined> {
  let first: string | undefined;
  for (let attempt = 1; ; attempt += 1) {
    try {
      await fs.mkdir(path);
      return first ?? path;
    } catch (error) {
      const code = codeOf(error);
      if (code === "EEXIST" && (await fs.stat(path)).isDirectory()) return first;
      // Once more where the parent is there now, whoever made it; twice without one is no place for directories.
      if (code !== "ENOENT" || attempt === 2) throw error;
      first = await makeWithParents(dirname(path));
    }
  }
}

function codeOf(error: unknown): string {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return typeof code === "string" ? code : "EIO";
}

/** Runs a call of Node's fs; its failure becomes a FileStoreError. */
async function attempt<T>(operation: string, path: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof FileStoreError) throw error;
    throw new FileStoreError(operation, path, codeOf(error), { cause: error });
  }
}

async function orNull<T>(promise: Promise<T>): Promise<T | null> {
  try {
    return await promise;
  } catch (error) {
    if (error instanceof FileStoreError && error.code === "ENOENT") return null;
    throw error;
  }
}
