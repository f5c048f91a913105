/*
 * Nodes and placements over a key table: keys `node.NAME`, `files.NAME`, `drain.NAME`, `pools.NAME` and `placement.VOLUME`. Each key has one writer at a time (a node its
 * own, the api the placements), so a compare-and-set that lost is simply made again on what is there. See ports/cluster-map.ts.
 */
import {
  type FileLimits,
  type NodeRecord,
  orderedPool,
  type PlacementRecord,
  type PoolOrder,
  type PoolRecord,
} from "#shared/domain/cluster.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { decodeClusterRecord, encodeClusterRecord } from "#shared/formats/cluster-records.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { ClusterMap, SeenNode } from "#shared/ports/cluster-map.ts";
import type { KeyRow, KeyTable, KeyWatch } from "#shared/ports/key-table.ts";

interface Seen<T> {
  readonly record: T;
  readonly sinceMs: number;
}

const putsMax = 8;

export class KeyTableMap implements ClusterMap {
  readonly #table: KeyTable;
  readonly #clock: Clock;
  readonly #nodes = new Map<string, Seen<NodeRecord>>();
  readonly #placements = new Map<string, PlacementRecord>();
  readonly #drained = new Set<string>();
  readonly #pools = new Map<string, readonly PoolOrder[]>();
  readonly #files = new Map<string, FileLimits["pools"]>();
  /** Of pools and placements, by key: what was heard of another's later change stays when the answer to an own one comes behind it. */
  readonly #revisions = new Map<string, number>();
  readonly #watches: readonly KeyWatch[];
  readonly #ready: Promise<unknown>;
  readonly #listeners: (() => void)[] = [];
  readonly #errorListeners: ((error: VarveError) => void)[] = [];

  constructor(table: KeyTable, clock: Clock) {
    this.#table = table;
    this.#clock = clock;
    const caughtUp: Promise<void>[] = [];
    const watch = (prefix: string, take: (row: KeyRow) => void): KeyWatch => {
      let done = (): void => undefined;
      caughtUp.push(
        new Promise((resolve) => {
          done = resolve;
        }),
      );
      return table.watch(prefix, { row: (row) => this.#take(row, take), caughtUp: () => done() });
    };
    this.#watches = [
      watch("node.", ({ key, value }) => {
        if (value === null) this.#nodes.delete(key);
        else {
          const record = decodeClusterRecord("node", value, key);
          this.#nodes.set(key, { record, sinceMs: clock.monotonicMs() });
        }
      }),
      watch("drain.", ({ key, value }) => {
        if (value === null) this.#drained.delete(key);
        else {
          decodeClusterRecord("drain", value, key);
          this.#drained.add(key);
        }
      }),
      watch("pools.", ({ key, value }) => {
        if (value === null) this.#pools.delete(key);
        else this.#pools.set(key, decodeClusterRecord("pools", value, key).pools);
      }),
      watch("files.", ({ key, value }) => {
        if (value === null) this.#files.delete(key);
        else this.#files.set(key, decodeClusterRecord("files", value, key).pools);
      }),
      watch("placement.", ({ key, value }) => {
        if (value === null) this.#placements.delete(key);
        else this.#placements.set(key, decodeClusterRecord("placement", value, key));
      }),
    ];
    this.#ready = Promise.all(caughtUp);
  }

  async ready(): Promise<void> {
    await this.#ready;
  }

  nodes(): readonly SeenNode[] {
    const nowMs = this.#clock.monotonicMs();
    return [...this.#nodes.values()]
      .map(({ record, sinceMs }) => ({
        record: { ...record, pools: record.pools.map((pool) => this.#ordered(record.name, pool)) },
        ageMs: nowMs - sinceMs,
        drained: this.#drained.has(`drain.${record.name}`),
      }))
      .sort((a, b) => (a.record.name < b.record.name ? -1 : 1));
  }

  placements(): readonly PlacementRecord[] {
    return [...this.#placements.values()];
  }

  placementOf(volumeId: string): PlacementRecord | null {
    return this.#placements.get(`placement.${volumeId}`) ?? null;
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  onError(listener: (error: VarveError) => void): void {
    this.#errorListeners.push(listener);
  }

  async putNode(record: NodeRecord): Promise<void> {
    await this.#put(`node.${record.name}`, encodeClusterRecord("node", record));
  }

  async putFileLimits(record: FileLimits): Promise<void> {
    await this.#put(`files.${record.node}`, encodeClusterRecord("files", record));
  }

  async setDrained(node: string, drained: boolean): Promise<void> {
    const key = `drain.${node}`;
    for (let attempt = 0; attempt < putsMax; attempt += 1) {
      const row = await this.#table.get(key);
      const revision = row?.revision ?? 0;
      const isThere = row !== null && row.value !== null;
      const done =
        isThere === drained ||
        (drained
          ? (await this.#table.put(key, encodeClusterRecord("drain", { node }), revision)) !== null
          : await this.#table.remove(key, revision));
      if (!done) continue;
      if (drained) this.#drained.add(key);
      else this.#drained.delete(key);
      return;
    }
    throw contested(key);
  }

  async setPools(node: string, orders: readonly PoolOrder[]): Promise<void> {
    const key = `pools.${node}`;
    for (let attempt = 0; attempt < putsMax; attempt += 1) {
      const row = await this.#table.get(key);
      const present =
        row === null || row.value === null ? [] : decodeClusterRecord("pools", row.value, key).pools;
      const others = present.filter(({ name }) => orders.every((order) => order.name !== name));
      const merged = orders.map(({ name, quotaBytes, tags }) => {
        const before = present.find((one) => one.name === name);
        return {
          name,
          quotaBytes: quotaBytes ?? before?.quotaBytes ?? null,
          tags: tags ?? before?.tags ?? null,
        };
      });
      const pools = [...others, ...merged].sort((a, b) => (a.name < b.name ? -1 : 1));
      const value = encodeClusterRecord("pools", { node, pools });
      const revision = await this.#table.put(key, value, row?.revision ?? 0);
      if (revision === null) continue;
      if (this.#isNewest(key, revision)) this.#pools.set(key, pools);
      return;
    }
    throw contested(key);
  }

  async changePlacement(
    volumeId: string,
    change: (present: PlacementRecord | null) => PlacementRecord | null,
  ): Promise<void> {
    const key = `placement.${volumeId}`;
    for (let attempt = 0; attempt < putsMax; attempt += 1) {
      const row = await this.#table.get(key);
      const present =
        row === null || row.value === null ? null : decodeClusterRecord("placement", row.value, key);
      const next = change(present);
      const revision = await this.#replace(key, next, row?.revision ?? 0);
      if (revision === null) continue;
      if (!this.#isNewest(key, revision)) return;
      // Known here before the watch tells: who placed it goes on with it.
      if (next === null) this.#placements.delete(key);
      else this.#placements.set(key, next);
      return;
    }
    throw contested(key);
  }

  #ordered(node: string, pool: PoolRecord): PoolRecord {
    const file = this.#files.get(`files.${node}`)?.find(({ name }) => name === pool.name);
    return orderedPool(
      file === undefined ? pool : { ...pool, fileBytesMax: file.fileBytesMax },
      this.#pools.get(`pools.${node}`)?.find(({ name }) => name === pool.name),
    );
  }

  /** The revision that it made, of a removal the one that is gone; null: somebody else changed it meanwhile. */
  async #replace(key: string, next: PlacementRecord | null, revision: number): Promise<number | null> {
    if (next !== null) return await this.#table.put(key, encodeClusterRecord("placement", next), revision);
    return revision === 0 || (await this.#table.remove(key, revision)) ? revision : null;
  }

  #isNewest(key: string, revision: number): boolean {
    if (revision < (this.#revisions.get(key) ?? 0)) return false;
    this.#revisions.set(key, revision);
    return true;
  }

  close(): void {
    for (const watch of this.#watches) watch.close();
  }

  #take(row: KeyRow, take: (row: KeyRow) => void): void {
    if (!this.#isNewest(row.key, row.revision)) return;
    try {
      take(row);
    } catch (cause) {
      for (const listener of this.#errorListeners) listener(cause as VarveError);
      return;
    }
    for (const listener of this.#listeners) listener();
  }

  async #put(key: string, value: Uint8Array): Promise<void> {
    for (let attempt = 0; attempt < putsMax; attempt += 1) {
      const row = await this.#table.get(key);
      if ((await this.#table.put(key, value, row?.revision ?? 0)) !== null) return;
    }
    throw contested(key);
  }
}

function contested(key: string): VarveError {
  return new VarveError("KeyContested", "Retry", `${key} is changed by somebody else all the time`, {
    hint: "Two processes have the same name: give each node and gateway its own.",
    fields: { key },
  });
}
