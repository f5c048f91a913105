/*
 * The state that every catalogue adapter keeps in memory: records by id, checked at each change, and one change after the
 * other. An adapter says only how a whole new state is stored; the state in memory moves after that has succeeded.
 * Called by file.ts, key-table.ts and memory.ts.
 */
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { checkVolumeName, checkVolumeSize, type VolumeRecord } from "#shared/domain/volume.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";

export abstract class CatalogRecords implements VolumeCatalog {
  private records: ReadonlyMap<string, VolumeRecord> = new Map();
  private stored = false;
  private lastChange: Promise<void> = Promise.resolve();

  protected abstract read(): Promise<readonly VolumeRecord[] | null>;
  /** False: somebody else changed the stored state since it was read; nothing was written, read it again. */
  protected abstract write(records: readonly VolumeRecord[]): Promise<boolean>;

  async load(): Promise<readonly VolumeRecord[]> {
    this.adopt(await this.read());
    return this.list();
  }

  /** What is stored now, as an adapter learned of it; null: nothing. */
  protected adopt(found: readonly VolumeRecord[] | null): void {
    this.stored = found !== null;
    this.records = new Map((found ?? []).map((record) => [record.id, record]));
  }

  exists(): boolean {
    return this.stored;
  }

  list(): readonly VolumeRecord[] {
    return sorted(this.records);
  }

  find(name: string): VolumeRecord | null {
    for (const record of this.records.values()) if (record.name === name) return record;
    return null;
  }

  get(id: string): VolumeRecord | null {
    return this.records.get(id) ?? null;
  }

  async fetch(id: string): Promise<VolumeRecord | null> {
    await this.lastChange;
    return this.get(id);
  }

  async put(record: VolumeRecord): Promise<void> {
    await this.inTurn((records) => setIn(records, record));
  }

  async change(id: string, edit: (present: VolumeRecord) => VolumeRecord): Promise<void> {
    await this.inTurn((records) => {
      const present = records.get(id);
      if (present === undefined) throw volumeGone(id);
      setIn(records, edit(present));
    });
  }

  async remove(id: string): Promise<void> {
    await this.inTurn((records) => {
      records.delete(id);
    });
  }

  async save(): Promise<void> {
    await this.inTurn(() => {});
  }

  /** Runs after every earlier change, whether that one succeeded or not. */
  private async inTurn(edit: (records: Map<string, VolumeRecord>) => void): Promise<void> {
    const turn = this.lastChange.then(async () => {
      let next = new Map(this.records);
      edit(next);
      while (!(await this.write(sorted(next)))) {
        this.adopt(await this.read());
        next = new Map(this.records);
        edit(next);
      }
      this.records = next;
      this.stored = true;
    });
    this.lastChange = turn.catch(() => {});
    await turn;
  }
}

function sorted(records: ReadonlyMap<string, VolumeRecord>): readonly VolumeRecord[] {
  return [...records.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

function setIn(records: Map<string, VolumeRecord>, record: VolumeRecord): void {
  checkVolumeName(record.name);
  checkVolumeSize(record.sizeBytes);
  checkRoom(records, record);
  records.set(record.id, record);
}

function volumeGone(id: string): VarveError {
  return new VarveError("UnknownVolumeError", "Invalid", `volume ${id} was deleted meanwhile`, {
    hint: "Nothing was changed. What there is: varve volume list.",
    fields: { id },
  });
}

function checkRoom(records: ReadonlyMap<string, VolumeRecord>, record: VolumeRecord): void {
  for (const other of records.values()) {
    if (other.name !== record.name || other.id === record.id) continue;
    throw new VarveError("VolumeExistsError", "Invalid", `a volume named ${record.name} exists already`, {
      hint: "Choose another name, or delete that volume first: varve volume delete NAME.",
      fields: { name: record.name },
    });
  }
  if (records.has(record.id) || records.size < limits.volumesMax) return;
  throw new VarveError(
    "CatalogFullError",
    "Full",
    `the catalogue holds ${limits.volumesMax} volumes, its maximum`,
    { hint: "Delete a volume, or use another data directory.", fields: { volumesMax: limits.volumesMax } },
  );
}
