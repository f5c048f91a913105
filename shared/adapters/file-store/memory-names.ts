/*
 * Directories and names of an in-memory file system: which path is which inode. Used by memory.ts and, once as what the
 * process sees and once as what a power cut leaves, by simulated-names.ts. Paths are taken as they come, with `/` between.
 */
import { FileStoreError } from "#shared/domain/errors.ts";

export function directoryOf(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash <= 0 ? "/" : path.slice(0, slash);
}

function nameIn(directory: string, path: string): string | null {
  const prefix = directory.endsWith("/") ? directory : `${directory}/`;
  if (!path.startsWith(prefix)) return null;
  const name = path.slice(prefix.length);
  return name === "" || name.includes("/") ? null : name;
}

export class MemoryNames<I> {
  readonly files: Map<string, I>;
  readonly directories: Set<string>;

  constructor(files: Iterable<[string, I]> = [], directories: Iterable<string> = ["/"]) {
    this.files = new Map(files);
    this.directories = new Set(directories);
  }

  makeDirectory(path: string): void {
    for (let at = path; !this.directories.has(at); at = directoryOf(at)) this.directories.add(at);
  }

  /** Names of files and directories directly in `path`, sorted; [] where it does not exist. */
  list(path: string): string[] {
    const names = new Set<string>();
    for (const known of [...this.files.keys(), ...this.directories]) {
      const name = nameIn(path, known);
      if (name !== null) names.add(name);
    }
    return [...names].sort();
  }

  /** The inode, or ENOENT. */
  require(operation: string, path: string): I {
    const inode = this.files.get(path);
    if (inode === undefined) throw new FileStoreError(operation, path, "ENOENT");
    return inode;
  }

  requireDirectory(operation: string, path: string): void {
    if (!this.directories.has(path)) throw new FileStoreError(operation, path, "ENOENT");
  }

  rename(from: string, to: string): void {
    const inode = this.require("rename", from);
    this.requireDirectory("rename", directoryOf(to));
    this.files.delete(from);
    this.files.set(to, inode);
  }

  removeTree(path: string): void {
    const inside = `${path}/`;
    for (const known of this.files.keys()) {
      if (known === path || known.startsWith(inside)) this.files.delete(known);
    }
    for (const known of this.directories) {
      if (known === path || known.startsWith(inside)) this.directories.delete(known);
    }
  }
}
