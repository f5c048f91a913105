/*
 * Shared records of volumes' pasts over a key table: keys `history.VOLUME` (the bytes of history.json, docs/formats/volume-history.md)
 * and `archive.VOLUME` (docs/formats/cluster-records.md). Every write is a compare-and-set, made again on what is there. See
 * ports/past-records.ts; opened by shared/shell/cluster-connection.ts.
 */
import type { ArchiveRecord } from "#shared/domain/cluster.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { HistoryRecord } from "#shared/domain/history-record.ts";
import { decodeClusterRecord, encodeClusterRecord } from "#shared/formats/cluster-records.ts";
import { decodeVolumeHistory, encodeVolumeHistory } from "#shared/formats/volume-history.ts";
import type { KeyRow, KeyTable, KeyWatch } from "#shared/ports/key-table.ts";
import type { PastRecords } from "#shared/ports/past-records.ts";

const putsMax = 16;
/** A value is one message of the server, which takes 1 MiB by default. */
const historyBytesMax = 1000 * 1024;

export class KeyTablePastRecords implements PastRecords {
  readonly #table: KeyTable;
  readonly #histories = new Map<string, HistoryRecord>();
  readonly #archives = new Map<string, ArchiveRecord>();
  /** Of the records above, by key: what was heard of another's later change stays when the answer to an own one comes behind it. */
  readonly #revisions = new Map<string, number>();
  readonly #watches: readonly KeyWatch[];
  readonly #ready: Promise<unknown>;
  readonly #listeners = new Set<(volumeId: string) => void>();
  readonly #errorListeners: ((error: VarveError) => void)[] = [];

  constructor(table: KeyTable) {
    this.#table = table;
    const caughtUp: Promise<void>[] = [];
    const watch = (prefix: string, take: (volumeId: string, row: KeyRow) => void): KeyWatch => {
      let done = (): void => undefined;
      caughtUp.push(
        new Promise((resolve) => {
          done = resolve;
        }),
      );
      return table.watch(prefix, {
        row: (row) => this.#take(row.key.slice(prefix.length), row, take),
        caughtUp: () => done(),
      });
    };
    this.#watches = [
      watch("history.", (id, { value }) => keep(this.#histories, id, value && historyIn(value, id))),
      watch("archive.", (id, { value, key }) =>
        keep(this.#archives, id, value && decodeClusterRecord("archive", value, key)),
      ),
    ];
    this.#ready = Promise.all(caughtUp);
  }

  async ready(): Promise<void> {
    await this.#ready;
  }

  historyOf(volumeId: string): HistoryRecord | null {
    return this.#histories.get(volumeId) ?? null;
  }

  archiveOf(volumeId: string): ArchiveRecord | null {
    return this.#archives.get(volumeId) ?? null;
  }

  onChange(listener: (volumeId: string) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  onError(listener: (error: VarveError) => void): void {
    this.#errorListeners.push(listener);
  }

  async changeHistory(
    volumeId: string,
    edit: (present: HistoryRecord | null) => HistoryRecord | null,
  ): Promise<HistoryRecord | null> {
    const key = `history.${volumeId}`;
    let next: HistoryRecord | null = null;
    const revision = await this.#change(key, (value) => {
      const present = value === null ? null : historyIn(value, volumeId);
      next = edit(present);
      if (next === present) return value;
      return next === null ? null : encoded(next);
    });
    if (this.#isNewest(key, revision)) keep(this.#histories, volumeId, next);
    this.#tell(volumeId);
    return next;
  }

  async putArchive(volumeId: string, record: ArchiveRecord): Promise<void> {
    const key = `archive.${volumeId}`;
    await this.#change(key, (value) => {
      const present = value === null ? null : decodeClusterRecord("archive", value, key);
      if (present !== null && isFencedBy(present, record)) throw fenced(volumeId, present);
      return encodeClusterRecord("archive", record);
    });
  }

  async forget(volumeId: string): Promise<void> {
    for (const kind of ["archive", "history"]) await this.#change(`${kind}.${volumeId}`, () => null);
    this.#histories.delete(volumeId);
    this.#archives.delete(volumeId);
    this.#tell(volumeId);
  }

  close(): void {
    for (const watch of this.#watches) watch.close();
  }

  #isNewest(key: string, revision: number): boolean {
    if (revision < (this.#revisions.get(key) ?? 0)) return false;
    this.#revisions.set(key, revision);
    return true;
  }

  /** `change` sees the present value and gives the next one; null: none. Resolves with the revision that it made, or found as wanted. */
  async #change(key: string, change: (value: Uint8Array | null) => Uint8Array | null): Promise<number> {
    for (let attempt = 0; attempt < putsMax; attempt += 1) {
      const row = await this.#table.get(key);
      const value = row?.value ?? null;
      const next = change(value);
      const revision = row?.revision ?? 0;
      if (next === value) return revision;
      if (next === null) {
        if (await this.#table.remove(key, revision)) return revision;
        continue;
      }
      const made = await this.#table.put(key, next, revision);
      if (made !== null) return made;
    }
    throw new VarveError("KeyContested", "Retry", `${key} is changed by somebody else all the time`, {
      hint: "Try again in a moment.",
      fields: { key },
    });
  }

  #take(volumeId: string, row: KeyRow, take: (volumeId: string, row: KeyRow) => void): void {
    if (!this.#isNewest(row.key, row.revision)) return;
    try {
      take(volumeId, row);
    } catch (cause) {
      for (const listener of this.#errorListeners) listener(cause as VarveError);
      return;
    }
    this.#tell(volumeId);
  }

  #tell(volumeId: string): void {
    for (const listener of this.#listeners) listener(volumeId);
  }
}

function keep<T>(map: Map<string, T>, key: string, record: T | null): void {
  if (record === null) map.delete(key);
  else map.set(key, record);
}

function historyIn(value: Uint8Array, volumeId: string): HistoryRecord {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  return decodeVolumeHistory(bytes, `history.${volumeId}`, volumeId);
}

function encoded(record: HistoryRecord): Buffer {
  const bytes = encodeVolumeHistory(record);
  if (bytes.length <= historyBytesMax) return bytes;
  throw new VarveError(
    "HistoryRecordFull",
    "Full",
    `the snapshots and pins of volume ${record.volumeId} take ${bytes.length} bytes, at most ${historyBytesMax} fit a message`,
    { hint: "Delete snapshots that you no longer need: varve snapshot list, varve snapshot delete." },
  );
}

function isFencedBy(present: ArchiveRecord, record: ArchiveRecord): boolean {
  if (present.archiverEpoch !== record.archiverEpoch) return present.archiverEpoch > record.archiverEpoch;
  return present.archiver !== record.archiver;
}

function fenced(volumeId: string, { archiver, archiverEpoch }: ArchiveRecord): VarveError {
  return new VarveError(
    "ArchiverFenced",
    "Fenced",
    `archiver ${archiver} archives volume ${volumeId} now, as epoch ${archiverEpoch}`,
    { hint: "Nothing is lost: it goes on from what is in the bucket.", fields: { volumeId, archiver } },
  );
}
