/*
 * One key table as the servers hold it, with its past, because a server that is behind may answer a read. Owned by cluster-nats.ts;
 * simulated-keys.ts is how a process uses it.
 */
import type { KeyRow } from "#shared/ports/key-table.ts";

interface PastRow {
  readonly row: KeyRow;
  readonly atMs: number;
}

export class KeyServer {
  private readonly nowMs: () => number;
  private readonly rows = new Map<string, PastRow[]>();
  private revision = 0;
  readonly listeners = new Set<(row: KeyRow) => void>();

  constructor(nowMs: () => number) {
    this.nowMs = nowMs;
  }

  /** As it was at that time. */
  get(key: string, atMs: number): KeyRow | null {
    const row = this.rows.get(key)?.findLast((one) => one.atMs <= atMs)?.row;
    return row === undefined || row.value === null ? null : row;
  }

  newest(): readonly KeyRow[] {
    return [...this.rows.values()].flatMap((past) => past.slice(-1).map(({ row }) => row));
  }

  /** The new revision; null: the key has another one than expected. */
  set(key: string, value: Uint8Array | null, expected: number): number | null {
    const present = this.get(key, this.nowMs())?.revision ?? 0;
    if (present !== expected) return null;
    this.revision += 1;
    const row = { key, value: value === null ? null : Uint8Array.from(value), revision: this.revision };
    const past = this.rows.get(key) ?? [];
    this.rows.set(key, [...past.slice(-50), { row, atMs: this.nowMs() }]);
    for (const listener of this.listeners) listener(row);
    return this.revision;
  }
}
