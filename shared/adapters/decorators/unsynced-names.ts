/*
 * Names that were changed and whose directory was not synced, in process memory. A new file lives under a hidden name until
 * its directory is synced; renames and removes are carried out below only then. Called by dropping-unsynced.ts.
 * The same rules as the simulated disk's names, on a real file system.
 */
import { dirname } from "node:path";
import type { FileStore } from "#shared/ports/file-store.ts";

/** A file and the name it has below. */
interface Place {
  below: string;
}

type NameChange =
  | { readonly kind: "link"; readonly path: string; readonly place: Place }
  | { readonly kind: "unlink"; readonly path: string; readonly place: Place }
  | { readonly kind: "rename"; readonly from: string; readonly path: string; readonly place: Place };

interface PendingChange {
  readonly change: NameChange;
  readonly unsynced: Set<string>;
}

export class UnsyncedNames {
  readonly #store: FileStore;
  readonly #hiddenDirectory: string;
  /** Names that are not what the store below says: a place, or null for a name that is gone. */
  readonly #changed = new Map<string, Place | null>();
  #pending: PendingChange[] = [];
  #hiddenCount = 0;

  constructor(store: FileStore, hiddenDirectory: string) {
    this.#store = store;
    this.#hiddenDirectory = hiddenDirectory;
  }

  /** The name below, or null where the name is gone. */
  below(path: string): string | null {
    const changed = this.#changed.get(path);
    return changed === undefined ? path : (changed?.below ?? null);
  }

  async list(path: string): Promise<readonly string[]> {
    const names = new Set(await this.#store.list(path));
    for (const [changed, place] of this.#changed) {
      if (dirname(changed) !== path) continue;
      const name = changed.slice(path.length + 1);
      if (place === null) names.delete(name);
      else names.add(name);
    }
    return [...names].sort();
  }

  /** A hidden name for a new file that will be linked as `path`. */
  hiddenName(): string {
    this.#hiddenCount += 1;
    return `${this.#hiddenDirectory}/${this.#hiddenCount}`;
  }

  link(path: string, below: string): void {
    this.#push({ kind: "link", path, place: { below } }, [path]);
    this.#changed.set(path, { below });
  }

  unlink(path: string): void {
    this.#push({ kind: "unlink", path, place: { below: this.below(path) ?? path } }, [path]);
    this.#changed.set(path, null);
  }

  rename(from: string, to: string): void {
    const place = { below: this.below(from) ?? from };
    this.#push({ kind: "rename", from, path: to, place }, [from, to]);
    this.#changed.set(from, null);
    this.#changed.set(to, place);
  }

  /** A name that was replaced durably, or whose directory is gone. */
  forget(path: string): void {
    const inside = `${path}/`;
    const gone = (name: string): boolean => name === path || name.startsWith(inside);
    for (const name of this.#changed.keys()) if (gone(name)) this.#changed.delete(name);
    this.#pending = this.#pending.filter(({ change }) => !gone(change.path));
  }

  /** Carries out, in order, what waited for this directory only. */
  async syncDirectory(path: string): Promise<void> {
    for (const pending of this.#pending) pending.unsynced.delete(path);
    const held = new Set<string>();
    for (const pending of this.#pending.splice(0)) {
      const { change } = pending;
      const names = change.kind === "rename" ? [change.from, change.path] : [change.path];
      if (pending.unsynced.size > 0 || names.some((name) => held.has(name))) {
        for (const name of names) held.add(name);
        this.#pending.push(pending);
      } else await this.#carryOut(change);
    }
    await this.#store.syncDirectory(path);
    for (const [name, place] of this.#changed) {
      const settled = place === null || place.below === name;
      if (settled && !this.#pending.some(({ change }) => touches(change, name))) this.#changed.delete(name);
    }
  }

  #push(change: NameChange, paths: readonly string[]): void {
    this.#pending.push({ change, unsynced: new Set(paths.map((path) => dirname(path))) });
  }

  async #carryOut(change: NameChange): Promise<void> {
    const source =
      change.kind === "link" ? change.place.below : change.kind === "rename" ? change.from : change.path;
    if (change.kind === "unlink") await this.#store.remove(source);
    else {
      await this.#store.rename(source, change.path);
      // Whoever knows the file by its name below finds it under the new one; a later change of the name says otherwise.
      for (const place of this.#changed.values()) if (place?.below === source) place.below = change.path;
    }
  }
}

function touches(change: NameChange, name: string): boolean {
  return change.path === name || (change.kind === "rename" && change.from === name);
}
