/*
 * A small table of keys that several machines share: every change is a compare-and-set on the key's revision. Catalogue,
 * placements, node records and leases stand in such tables (docs/specs/cluster.md). Adapters: adapters/key-table/jetstream-kv.ts
 * and memory.ts; one contract suite (test/contract/key-table.contract.ts) runs on both.
 */

export interface KeyRow {
  readonly key: string;
  /** Null: the key was removed. */
  readonly value: Uint8Array | null;
  /** Grows with each change of any key of the table. */
  readonly revision: number;
}

export interface KeyWatcher {
  /** Each present row once, then each change. A row may be told again; never an older one of a key after a newer one. */
  row(row: KeyRow): void;
  /** All rows that were there when the watch began have been told. Called once. */
  caughtUp(): void;
}

export interface KeyWatch {
  close(): void;
}

export interface KeyTable {
  /** The row as it is now, or null where the key is not there. Rejects Retry while the table is away. */
  get(key: string): Promise<KeyRow | null>;
  /**
   * Stores the value if the key still has revision `expected` (0: it is not there); durable when it resolves. Null: it has
   * another one, and nothing was changed. Rejects Retry where no answer came: then it may have happened, now or a little later.
   */
  put(key: string, value: Uint8Array, expected: number): Promise<number | null>;
  /** Removes the key if it still has revision `expected`; false: it has another one. Rejects as put(). */
  remove(key: string, expected: number): Promise<boolean>;
  /** Watches the keys that begin with `prefix`. Goes on by itself after the table was away. */
  watch(prefix: string, watcher: KeyWatcher): KeyWatch;
}
