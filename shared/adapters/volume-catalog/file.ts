/*
 * The catalogue as one small file, DATA/catalog.json, replaced whole at each change (write beside it, sync, rename, sync
 * the directory), so that a crash leaves the old or the new one. A volume appears or goes a few times a day: no more store
 * than that is needed. Called by the volume host; the bytes are docs/formats/catalog.md by shared/formats/catalog.ts.
 */
import { dataLayout } from "#shared/domain/data-layout.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { decodeCatalog, encodeCatalog } from "#shared/formats/catalog.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import { CatalogRecords } from "./records.ts";

export class FileVolumeCatalog extends CatalogRecords {
  private readonly store: FileStore;
  private readonly path: string;

  constructor(store: FileStore, dataDirectory: string) {
    super();
    this.store = store;
    this.path = `${dataDirectory}/${dataLayout.catalog}`;
  }

  protected override async read(): Promise<readonly VolumeRecord[] | null> {
    const content = await this.store.readWhole(this.path);
    return content === null ? null : decodeCatalog(content, this.path);
  }

  protected override async write(records: readonly VolumeRecord[]): Promise<boolean> {
    await this.store.replaceWhole(this.path, encodeCatalog(records));
    return true;
  }
}
