/*
 * Names on the simulated disk: what the process sees, and what a power cut leaves. A create, rename or remove is lost or
 * kept as chance has it until its directory was synced; only changes of one name keep their order. Called by
 * simulated-store.ts, and by simulated-disk.ts at a crash.
 */
import type { Random } from "#shared/ports/clock.ts";
import { directoryOf, MemoryNames } from "./memory-names.ts";

type NameChange<I> =
  | { readonly kind: "link"; readonly path: string; readonly inode: I }
  | { readonly kind: "unlink"; readonly path: string }
  | { readonly kind: "rename"; readonly from: string; readonly to: string };

interface PendingChange<I> {
  readonly change: NameChange<I>;
  readonly paths: readonly string[];
  /** Directories that must be synced before the change is durable. */
  readonly unsynced: Set<string>;
}

export class SimulatedNames<I> {
  seen = new MemoryNames<I>();
  #platter = new MemoryNames<I>();
  #pending: PendingChange<I>[] = [];

  makeDirectory(path: string): void {
    this.seen.makeDirectory(path);
    this.#platter.makeDirectory(path);
  }

  link(path: string, inode: I): void {
    this.seen.requireDirectory("create", directoryOf(path));
    this.seen.files.set(path, inode);
    this.#push({ kind: "link", path, inode }, [path]);
  }

  unlink(path: string): void {
    this.seen.require("remove", path);
    this.seen.files.delete(path);
    this.#push({ kind: "unlink", path }, [path]);
  }

  rename(from: string, to: string): void {
    this.seen.rename(from, to);
    this.#push({ kind: "rename", from, to }, [from, to]);
  }

  removeTree(path: string): void {
    const inside = `${path}/`;
    for (const known of this.seen.files.keys()) if (known.startsWith(inside)) this.unlink(known);
    this.seen.removeTree(path);
    // Directories are never lost. A removed one may come back empty until the directory that it was in is synced.
  }

  /** The name and its inode are durable together (an atomic replacement). */
  replace(path: string, inode: I): void {
    this.seen.requireDirectory("replace", directoryOf(path));
    this.seen.files.set(path, inode);
    this.#pending = this.#pending.filter((pending) => !pending.paths.includes(path));
    this.#platter.files.set(path, inode);
  }

  syncDirectory(path: string): void {
    this.seen.requireDirectory("sync directory", path);
    // What was in a directory that is gone can't be reached once the going is durable.
    const isGone = (other: string): boolean =>
      other.startsWith(`${path}/`) && !this.seen.directories.has(other);
    for (const { unsynced } of this.#pending) {
      for (const other of unsynced) if (other === path || isGone(other)) unsynced.delete(other);
    }
    const { directories } = this.#platter;
    for (const other of directories) if (isGone(other)) directories.delete(other);
    this.#settle((pending) => pending.unsynced.size === 0, false);
  }

  crash(random: Random): void {
    this.#settle((pending) => pending.unsynced.size === 0 || random.next() < 0.5, true);
    this.seen = new MemoryNames(this.#platter.files, this.#platter.directories);
  }

  #push(change: NameChange<I>, paths: readonly string[]): void {
    this.#pending.push({ change, paths, unsynced: new Set(paths.map(directoryOf)) });
  }

  /** Takes what survives to the platter, in order; what stands behind a change that doesn't, by name, waits or is lost too. */
  #settle(survives: (pending: PendingChange<I>) => boolean, forgetRest: boolean): void {
    const held = new Set<string>();
    const rest: PendingChange<I>[] = [];
    for (const pending of this.#pending) {
      if (!pending.paths.some((path) => held.has(path)) && survives(pending)) this.#take(pending.change);
      else {
        for (const path of pending.paths) held.add(path);
        rest.push(pending);
      }
    }
    this.#pending = forgetRest ? [] : rest;
  }

  #take(change: NameChange<I>): void {
    const { files } = this.#platter;
    if (change.kind === "link") files.set(change.path, change.inode);
    else if (change.kind === "unlink") files.delete(change.path);
    else {
      const inode = files.get(change.from);
      files.delete(change.from);
      if (inode !== undefined) files.set(change.to, inode);
    }
  }
}
