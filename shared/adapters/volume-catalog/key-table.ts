/*
 * The catalogue of several machines: the same document as DATA/catalog.json (docs/formats/catalog.md) under one key of a shared
 * key table, changed by compare-and-set, so that names stay unique whoever creates. Follows the changes of others by a watch.
 * Used by the gateway, storage and api processes; see docs/specs/cluster.md.
 */
import type { VarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { decodeCatalog, encodeCatalog } from "#shared/formats/catalog.ts";
import type { KeyRow, KeyTable, KeyWatch } from "#shared/ports/key-table.ts";
import { CatalogRecords } from "./records.ts";

const key = "volumes";

export class KeyTableCatalog extends CatalogRecords {
  private readonly table: KeyTable;
  private revision = 0;
  private watch: KeyWatch | null = null;

  constructor(table: KeyTable) {
    super();
    this.table = table;
  }

  /** Takes changes of others in from now on, and tells of each change, own ones included; `onError`: one can't be read. */
  follow(onChange: () => void, onError: (error: VarveError) => void): void {
    this.watch ??= this.table.watch(key, {
      row: (row) => {
        try {
          if (this.learn(row)) onChange();
        } catch (cause) {
          onError(cause as VarveError);
        }
      },
      caughtUp: () => {},
    });
  }

  override async fetch(id: string): Promise<VolumeRecord | null> {
    const row = await this.table.get(key);
    if (row !== null) this.learn(row);
    return this.get(id);
  }

  close(): void {
    this.watch?.close();
    this.watch = null;
  }

  protected override async read(): Promise<readonly VolumeRecord[] | null> {
    const row = await this.table.get(key);
    this.revision = row?.revision ?? 0;
    return row === null ? null : decoded(row);
  }

  protected override async write(records: readonly VolumeRecord[]): Promise<boolean> {
    const value = encodeCatalog(records);
    let revision: number | null;
    try {
      revision = await this.table.put(key, value, this.revision);
    } catch (cause) {
      // It may have been stored all the same.
      const row = await this.table.get(key);
      if (row === null || row.value === null || !value.equals(row.value)) throw cause;
      ({ revision } = row);
    }
    if (revision === null) return false;
    this.revision = revision;
    return true;
  }

  private learn(row: KeyRow): boolean {
    if (row.key !== key || row.revision < this.revision) return false;
    // Own changes are taken in when they are stored.
    if (row.revision > this.revision) {
      this.adopt(decoded(row));
      this.revision = row.revision;
    }
    return true;
  }
}

function decoded({ value }: KeyRow): readonly VolumeRecord[] | null {
  if (value === null) return null;
  return decodeCatalog(Buffer.from(value.buffer, value.byteOffset, value.byteLength), "catalogue in NATS");
}
