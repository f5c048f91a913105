/*
 * One data directory: is it one of ours, who holds it, what lies in it. The volume host opens it first and closes it last.
 * Layout: catalog.json, volumes/NAME/{disk.raw, log/, …}. Nothing is written before the directory was found to be ours or
 * empty, so that a wrong --data never leaves files in somebody's home.
 */
import { dataLayout, type VolumePaths, volumePaths } from "#shared/domain/data-layout.ts";
import { FileStoreError, VarveError } from "#shared/domain/errors.ts";
import type { DirectoryLock, FileStore } from "#shared/ports/file-store.ts";

/** Names that may stand in a directory that is not ours yet: a mount point's own, sockets, hidden files, our lock. */
const harmless = (name: string): boolean =>
  name === "lost+found" ||
  name === dataLayout.lock ||
  name === dataLayout.volumes ||
  name.startsWith(".") ||
  name.endsWith(".sock");

export class DataDirectory {
  readonly path: string;
  private readonly store: FileStore;
  private readonly lock: DirectoryLock;

  private constructor(store: FileStore, path: string, lock: DirectoryLock) {
    this.store = store;
    this.path = path;
    this.lock = lock;
  }

  /** Locks the directory; makes it first where `create` says so. A directory that is not ours gets no lock file. */
  static async open(store: FileStore, path: string, create: boolean): Promise<DataDirectory> {
    const names = await namesIn(store, path, create);
    if (!names.includes(dataLayout.catalog)) await requireFresh(store, path, names, create);
    const lock = await store.lockDirectory(path).catch((cause: unknown) => {
      throw cause instanceof FileStoreError && cause.code === "EAGAIN" ? held(path, cause) : cause;
    });
    try {
      await store.makeDirectory(`${path}/${dataLayout.volumes}`);
    } catch (cause) {
      await lock.release();
      throw cause;
    }
    return new DataDirectory(store, path, lock);
  }

  pathsOf(name: string): VolumePaths {
    return volumePaths(this.path, name);
  }

  /** Directories in volumes/ that no record knows: left by hand, or by a catalogue of another day. */
  async strangers(known: readonly string[]): Promise<readonly string[]> {
    const found = await this.store.list(`${this.path}/${dataLayout.volumes}`);
    return found.filter((name) => !known.includes(name));
  }

  async makeVolume(name: string): Promise<void> {
    await this.store.makeDirectory(this.pathsOf(name).directory);
  }

  async removeVolume(name: string): Promise<void> {
    await this.store.removeTree(this.pathsOf(name).directory);
    await this.store.syncDirectory(`${this.path}/${dataLayout.volumes}`);
  }

  async close(): Promise<void> {
    await this.lock.release();
  }
}

async function namesIn(store: FileStore, path: string, create: boolean): Promise<readonly string[]> {
  try {
    if (create) await store.makeDirectory(path);
    return await store.list(path);
  } catch (cause) {
    if (!(cause instanceof FileStoreError)) throw cause;
    const what = unusable[cause.code];
    if (what === undefined) throw cause;
    throw new VarveError("DataDirectoryUnusableError", "Invalid", `data directory ${path} ${what}`, {
      hint: "Give --data a directory that this user may write to.",
      fields: { path, code: cause.code },
      cause,
    });
  }
}

const unusable: Readonly<Record<string, string>> = {
  EEXIST: "is a file",
  ENOENT: "can't be made: a link on the way to it leads nowhere, or it is no place for directories",
  ENOTDIR: "is a file, or below one",
  EACCES: "may not be used by this user",
  EPERM: "may not be used by this user",
  EROFS: "is on a read-only file system",
  ENAMETOOLONG: "has too long a name",
};

/**
 * A directory without a catalogue must be empty as far as we care. Volumes without a catalogue are damage; anything else
 * is somebody else's directory.
 */
async function requireFresh(
  store: FileStore,
  path: string,
  names: readonly string[],
  create: boolean,
): Promise<void> {
  const volumes = await store.list(`${path}/${dataLayout.volumes}`);
  if (volumes.length > 0) {
    throw new VarveError(
      "CatalogMissingError",
      "Corrupt",
      `data directory ${path} has volumes (${shortList(volumes)}) but no ${dataLayout.catalog}`,
      {
        hint: "Put catalog.json back from a backup. Each volumes/NAME/disk.raw is a plain raw image and can be copied.",
        fields: { path, volumes: volumes.length },
      },
    );
  }
  const foreign = names.filter((name) => !harmless(name));
  if (foreign.length > 0) {
    throw new VarveError(
      "NotADataDirectoryError",
      "Invalid",
      `${path} is not a Varve data directory: it holds ${shortList(foreign)}`,
      {
        hint: "Give --data an empty or new directory, or one that varve up has made.",
        fields: { path },
      },
    );
  }
  if (!create) throw noDataDirectory(path);
}

function held(path: string, cause: FileStoreError): VarveError {
  return new VarveError("DataDirectoryHeldError", "Retry", `data directory ${path} is in use`, {
    hint: cause.hint,
    fields: { path },
    cause,
  });
}

function noDataDirectory(path: string): VarveError {
  return new VarveError("NoDataDirectoryError", "Invalid", `there is no data directory ${path}`, {
    hint: "Check --data. varve up --data DIR makes a new one.",
    fields: { path },
  });
}

function shortList(names: readonly string[]): string {
  const shown = names.slice(0, 3).join(", ");
  return names.length > 3 ? `${shown} and ${names.length - 3} more` : shown;
}
