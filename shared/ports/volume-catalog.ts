/*
 * The catalogue of one data directory: which volumes exist. The volume host reads it at start and writes it at create,
 * delete, resize and set. Adapters: adapters/volume-catalog/file.ts (DATA/catalog.json) and memory.ts; one contract suite
 * (test/contract/volume-catalog.contract.ts) runs on both. See docs/formats/catalog.md and docs/specs/volume-host.md.
 */
import type { VolumeRecord } from "#shared/domain/volume.ts";

export interface VolumeCatalog {
  /**
   * Reads and checks the stored catalogue; [] where none was ever written. Called once, before everything else. Rejects
   * Corrupt for damage and Invalid for a version that this program does not know; the stored bytes stay as they are.
   */
  load(): Promise<readonly VolumeRecord[]>;
  /** True when load() found a stored catalogue, or put() has written one. */
  exists(): boolean;
  /** All records as of the last finished change, sorted by name. A snapshot: later changes do not show in it. */
  list(): readonly VolumeRecord[];
  find(name: string): VolumeRecord | null;
  get(id: string): VolumeRecord | null;
  /** The record as whoever stores it has it now: a change that another process has finished is in it. Rejects Retry while nobody answers. */
  fetch(id: string): Promise<VolumeRecord | null>;
  /**
   * Adds a record, or replaces the one with the same id. Durable when it resolves; after a failure or a crash the
   * catalogue holds either the old or the new state. Changes are made one after the other in the order of calls. Rejects
   * Invalid, with nothing changed, where another record has the name, the record breaks a rule of domain/volume.ts or
   * the catalogue is full (limits.volumesMax).
   */
  put(record: VolumeRecord): Promise<void>;
  /**
   * Replaces the record with this id by what `edit` makes of it as it is stored then; called again where another process stored
   * something meanwhile. As put() otherwise; what `edit` throws is passed on. Rejects UnknownVolumeError where there is none (any more).
   */
  change(id: string, edit: (present: VolumeRecord) => VolumeRecord): Promise<void>;
  /** Removes the record with this id; nothing happens where there is none. Durable when it resolves. */
  remove(id: string): Promise<void>;
  /** Writes the present state although nothing changed, so that an empty catalogue exists. Durable when it resolves. */
  save(): Promise<void>;
}
