/*
 * The history file of one volume, in memory and on disk: read once, changed one edit after the other, replaced atomically
 * (docs/formats/volume-history.md). Called by volume-past.ts and by whoever makes a volume (create, clone, rescue).
 */
import { FileStoreError } from "#shared/domain/errors.ts";
import { type HistoryRecord, newHistoryRecord } from "#shared/domain/history-record.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { decodeVolumeHistory, encodeVolumeHistory } from "#shared/formats/volume-history.ts";
import type { FileStore } from "#shared/ports/file-store.ts";

export class HistoryFile {
  private readonly store: FileStore;
  private readonly path: string;
  private record: HistoryRecord;
  private lastChange: Promise<unknown> = Promise.resolve();

  private constructor(store: FileStore, path: string, record: HistoryRecord) {
    this.store = store;
    this.path = path;
    this.record = record;
  }

  /** A volume without the file was made by an older Varve: its history begins with the defaults, stored with the first change. */
  static async read(store: FileStore, path: string, volume: VolumeRecord): Promise<HistoryFile> {
    const bytes = await store.readWhole(path).catch((cause: unknown) => {
      if (cause instanceof FileStoreError && cause.code === "ENOENT") return null;
      throw cause;
    });
    const record =
      bytes === null
        ? newHistoryRecord(volume.id, volume.sizeBytes)
        : decodeVolumeHistory(bytes, path, volume.id);
    return new HistoryFile(store, path, record);
  }

  /** Makes the file of a new volume. Durable when it resolves. */
  static async create(store: FileStore, path: string, record: HistoryRecord): Promise<void> {
    await store.replaceWhole(path, encodeVolumeHistory(record));
  }

  get current(): HistoryRecord {
    return this.record;
  }

  /**
   * Replaces the content by what `edit` makes of the present one, after every earlier change. Durable when it resolves; what
   * `edit` throws, and a failure to write, leaves everything as it was.
   */
  async change(edit: (record: HistoryRecord) => HistoryRecord): Promise<HistoryRecord> {
    const turn = this.lastChange.then(async () => {
      const next = edit(this.record);
      if (next === this.record) return next;
      await this.store.replaceWhole(this.path, encodeVolumeHistory(next));
      this.record = next;
      return next;
    });
    this.lastChange = turn.catch(() => undefined);
    return await turn;
  }
}
