/*
 * The catalogue in memory: the twin of file.ts for unit tests and the simulator. What was stored outlives the object when
 * the same MemoryCatalogContent is given to the next one, as a file would; a failure can be put in front of a write.
 */
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { CatalogRecords } from "./records.ts";

export interface MemoryCatalogContent {
  records: readonly VolumeRecord[] | null;
  /** Thrown by the next write, which then changes nothing. */
  failNextWrite: Error | null;
}

export function emptyCatalogContent(): MemoryCatalogContent {
  return { records: null, failNextWrite: null };
}

export class MemoryVolumeCatalog extends CatalogRecords {
  private readonly content: MemoryCatalogContent;

  constructor(content: MemoryCatalogContent = emptyCatalogContent()) {
    super();
    this.content = content;
  }

  protected override async read(): Promise<readonly VolumeRecord[] | null> {
    return this.content.records;
  }

  protected override async write(records: readonly VolumeRecord[]): Promise<boolean> {
    const failure = this.content.failNextWrite;
    this.content.failNextWrite = null;
    if (failure !== null) throw failure;
    this.content.records = records;
    return true;
  }
}
