/*
 * The history file of one volume, in memory and on disk: read once, changed one edit after the other, in place with a copy beside it
 * (docs/formats/volume-history.md, "On disk"). Called by volume-past.ts and by whoever makes a volume (create, clone, rescue).
 */
import { historyCopyPathOf } from "#shared/domain/data-layout.ts";
import { type HistoryRecord, newHistoryRecord } from "#shared/domain/history-record.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import {
  encodeVolumeHistory,
  encodeVolumeHistoryFile,
  readVolumeHistory,
} from "#shared/formats/volume-history.ts";
import type { BlockFile, FileStore } from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";

export class HistoryFile {
  private readonly store: FileStore;
  private readonly path: string;
  private record: HistoryRecord;
  private lastChange: Promise<unknown> = Promise.resolve();
  /** Length of file and copy while both hold `record`, written as a whole by this process: only then the file may be overwritten. 0: not. */
  private twinBytes = 0;
  private slab: Slab | null = null;
  /** Kept open while it may be overwritten, so that a change is one call to the disk. */
  private file: BlockFile | null = null;

  /** Why the copy was read in the file's place, or null. */
  readonly copyUsed: string | null;

  private constructor(store: FileStore, path: string, record: HistoryRecord, copyUsed: string | null) {
    this.copyUsed = copyUsed;
    this.store = store;
    this.path = path;
    this.record = record;
  }

  /** A volume without the file was made by an older Varve: its history begins with the defaults, stored with the first change. */
  static async read(store: FileStore, path: string, volume: VolumeRecord): Promise<HistoryFile> {
    const found = await readVolumeHistory(async (one) => store.readWhole(one), path, volume.id);
    const record = found?.record ?? newHistoryRecord(volume.id, volume.sizeBytes);
    return new HistoryFile(store, path, record, found?.copyUsed ?? null);
  }

  /** Makes the file of a new volume. Durable when it resolves. */
  static async create(store: FileStore, path: string, record: HistoryRecord): Promise<void> {
    await store.replaceWhole(path, encodeVolumeHistory(record));
    // A copy of what stood here before must never speak for it.
    const copyPath = historyCopyPathOf(path);
    if ((await store.facts(copyPath)) !== null) await store.remove(copyPath);
  }

  get current(): HistoryRecord {
    return this.record;
  }

  /**
   * Makes the content what `edit` makes of the present one, after every earlier change. Durable when it resolves; what `edit` throws, and a
   * failure to write, leaves everything as it was (docs/formats/volume-history.md says what a crash right after such a failure may leave).
   */
  async change(edit: (record: HistoryRecord) => HistoryRecord): Promise<HistoryRecord> {
    const turn = this.lastChange.then(async () => {
      const next = edit(this.record);
      return next === this.record ? null : await this.put(next);
    });
    // The copy of what was overwritten follows behind the answer; the next change waits for it.
    this.lastChange = turn.then(
      async (behind) => behind?.(),
      () => undefined,
    );
    await turn;
    return this.record;
  }

  /** Resolves when nothing is being written any more and nothing is open; a later change opens the file again. */
  async settled(): Promise<void> {
    this.lastChange = this.lastChange.then(async () => this.shut());
    await this.lastChange;
  }

  /** Resolves when `next` is durable, with what is left to do. */
  private async put(next: HistoryRecord): Promise<(() => Promise<void>) | null> {
    const content = encodeVolumeHistoryFile(next);
    const inPlace = content.length === this.twinBytes;
    this.twinBytes = 0;
    if (inPlace) await this.overwriteOrRestore(content);
    else await this.replace(content);
    this.record = next;
    if (inPlace) return async () => this.putCopy(content, true);
    await this.putCopy(content, false);
    return null;
  }

  private async putCopy(content: Buffer, inPlace: boolean): Promise<void> {
    const path = historyCopyPathOf(this.path);
    try {
      if (inPlace) await this.overwriteCopy(path, content);
      else await this.store.replaceWhole(path, content);
      this.twinBytes = content.length;
      this.file ??= await this.store.open(this.path, { access: "direct" });
    } catch {
      // The file itself is durable, and the next change replaces it as a whole. Better no copy than an old one that may once be believed.
      this.twinBytes = 0;
      await this.dropCopy(path);
    }
  }

  private async dropCopy(path: string): Promise<void> {
    try {
      await this.store.remove(path);
    } catch {
      // There was none, or it stays: the next change tries again to write it.
    }
  }

  private async replace(content: Buffer): Promise<void> {
    await this.shut();
    await this.store.replaceWhole(this.path, content);
  }

  private async overwriteOrRestore(content: Buffer): Promise<void> {
    try {
      this.file ??= await this.store.open(this.path, { access: "direct" });
      await this.overwrite(this.file, content);
    } catch (cause) {
      // What stands there now nobody knows. The copy has the present content; where this fails too, the next change replaces the file.
      await this.replace(encodeVolumeHistoryFile(this.record)).catch(() => undefined);
      throw cause;
    }
  }

  private async overwriteCopy(path: string, content: Buffer): Promise<void> {
    const file = await this.store.open(path, { access: "direct" });
    try {
      await this.overwrite(file, content);
    } finally {
      await file.close();
    }
  }

  /** The file has this length, and its blocks were written before: so this waits for the disk, and for no journal. */
  private async overwrite(file: BlockFile, content: Buffer): Promise<void> {
    if (this.slab?.bytes.length !== content.length) this.slab = this.store.allocateSlab(content.length);
    const { slab } = this;
    content.copy(slab.bytes);
    await file.writeDurable([{ slab, start: 0, length: content.length }], 0);
  }

  private async shut(): Promise<void> {
    const { file } = this;
    this.file = null;
    await file?.close().catch(() => undefined); // whatever was written through it is durable
  }
}
