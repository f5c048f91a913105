/*
 * The key table in memory: the twin of jetstream-kv.ts for unit tests and simulations. Several processes of a test share one
 * MemoryKeys; each has a MemoryKeyTable of its own, which can be cut off, lose answers and hold changes back.
 */
import { VarveError } from "#shared/domain/errors.ts";
import type { KeyRow, KeyTable, KeyWatch, KeyWatcher } from "#shared/ports/key-table.ts";

/** What is stored. */
export class MemoryKeys {
  readonly rows = new Map<string, KeyRow>();
  readonly listeners = new Set<(row: KeyRow) => void>();
  #revision = 0;

  set(key: string, value: Uint8Array | null): number {
    this.#revision += 1;
    const row = { key, value: value === null ? null : Uint8Array.from(value), revision: this.#revision };
    this.rows.set(key, row);
    for (const listener of this.listeners) listener(row);
    return this.#revision;
  }
}

/** fine. away: nothing arrives. deaf: requests are carried out, no answer comes back. */
export type MemoryTableState = "fine" | "away" | "deaf";

export class MemoryKeyTable implements KeyTable {
  state: MemoryTableState = "fine";
  readonly #keys: MemoryKeys;

  constructor(keys: MemoryKeys = new MemoryKeys()) {
    this.#keys = keys;
  }

  async get(key: string): Promise<KeyRow | null> {
    await Promise.resolve();
    if (this.state !== "fine") throw away();
    const row = this.#keys.rows.get(key);
    return row === undefined || row.value === null ? null : row;
  }

  async put(key: string, value: Uint8Array, expected: number): Promise<number | null> {
    return await this.#change(key, expected, () => this.#keys.set(key, value));
  }

  async remove(key: string, expected: number): Promise<boolean> {
    return (await this.#change(key, expected, () => this.#keys.set(key, null))) !== null;
  }

  watch(prefix: string, watcher: KeyWatcher): KeyWatch {
    let open = true;
    let told = 0;
    const tell = (row: KeyRow): void => {
      if (!open || !row.key.startsWith(prefix)) return;
      // What is missed while cut off is told afterwards, as a watch that was begun again would.
      if (this.state === "away") {
        missed.set(row.key, row);
        return;
      }
      told = Math.max(told, row.revision);
      watcher.row(row);
    };
    const missed = new Map<string, KeyRow>();
    const listener = (row: KeyRow): void => {
      queueMicrotask(() => tell(row));
    };
    this.#missed.add(() => {
      const rows = [...missed.values()];
      missed.clear();
      for (const row of rows) tell(row);
    });
    this.#keys.listeners.add(listener);
    const present = [...this.#keys.rows.values()];
    queueMicrotask(() => {
      for (const row of present) if (row.value !== null) tell(row);
      if (open) watcher.caughtUp();
    });
    return {
      close: () => {
        open = false;
        this.#keys.listeners.delete(listener);
      },
    };
  }

  /** Back again: watchers hear what they missed. */
  heal(): void {
    this.state = "fine";
    for (const tell of this.#missed) tell();
  }

  readonly #missed = new Set<() => void>();

  async #change(key: string, expected: number, change: () => number): Promise<number | null> {
    await Promise.resolve();
    if (this.state === "away") throw away();
    const row = this.#keys.rows.get(key);
    const present = row === undefined || row.value === null ? 0 : row.revision;
    const result = present === expected ? change() : null;
    if (this.state === "deaf") throw away();
    return result;
  }
}

function away(): VarveError {
  return new VarveError("KeyTableAway", "Retry", "the key table did not answer");
}
