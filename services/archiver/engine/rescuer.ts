/*
 * Volumes out of a bucket alone: takes the next line of a volume, so that whoever served it before stops, and says what its files
 * on this machine begin with. `varve rescue` and `varve volume undelete` (services/cli) make the files. See docs/specs/retention.md,
 * "Rescue".
 */
import { lineMarkerKey, manifestKey, type VolumeManifest } from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { defaultHistoryPolicy, type HistoryRecord, type TakenLine } from "#shared/domain/history-record.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { encodeManifest } from "#shared/formats/manifest-object.ts";
import type { RescuedVolume } from "#shared/ports/bucket-administration.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { RemoteBeginning } from "#shared/ports/replica-home.ts";
import type { RescuePlan } from "#shared/ports/rescue.ts";
import type { BucketReader, PresentManifest } from "./bucket-reader.ts";
import { firstOfLine, greatestMarker, sizeAt } from "./taken-line.ts";
import { isBuried } from "./volume-burial.ts";

/** What a bucket holds for a rescue. */
export interface FoundVolumes {
  readonly live: readonly PresentManifest[];
  readonly deleted: readonly PresentManifest[];
}

export interface RescuerParts {
  readonly reader: BucketReader;
  readonly clock: Clock;
  readonly random: Random;
  /** Whether the store's probe passed. */
  conditionalPut(): Promise<boolean>;
}

export class Rescuer {
  private readonly parts: RescuerParts;

  constructor(parts: RescuerParts) {
    this.parts = parts;
  }

  /** All volumes of the bucket. Changes nothing. */
  async find(): Promise<FoundVolumes> {
    const live: PresentManifest[] = [];
    const deleted: PresentManifest[] = [];
    for (const { present } of await this.parts.reader.seenVolumes()) {
      if (present === null || isBuried(present.manifest)) continue;
      (present.manifest.deletedAtMs === null ? live : deleted).push(present);
    }
    return { live: live.sort(byName), deleted: deleted.sort(byName) };
  }

  /** The catalogue record of a volume that comes back. */
  recordOf(manifest: VolumeManifest): VolumeRecord {
    return recordOf(manifest);
  }

  /** What a rescue would reach. Changes nothing. */
  preview(manifest: VolumeManifest): RescuedVolume {
    return reachedOf(manifest);
  }

  /**
   * Publishes the volume on a new line. From now on its old archiver stops, and this machine is to serve it. A deleted one still
   * says so: it can be brought back again until this machine's catalogue has it and its archiver publishes (volume-past.ts).
   * `chosen`: the line of a plan() that was stored; taken so before, it changes nothing more.
   */
  async takeLine(volumeId: string, chosen?: TakenLine): Promise<RescuePlan> {
    const { reader, clock } = this.parts;
    const { name, lineNumber: number } = await this.present(volumeId);
    const taken = chosen ?? (await this.nextLine(volumeId, number));
    await this.mark(volumeId, name, taken);
    // Read behind the marker: what the old archiver published before it saw the marker counts.
    const before = await this.present(volumeId);
    const { number: lineNumber, id: line } = taken;
    if (before.lineNumber === lineNumber && before.line === line) return planOf(before);
    if (before.lineNumber >= lineNumber) throw overtaken(before.name);
    // The collector was quicker: what came back would be a disk that nobody can read.
    if (isBuried(before)) throw gone(volumeId);
    const next = firstOfLine(before, { line, lineNumber, writtenAtMs: clock.wallTimeMs() });
    await reader.store.put(manifestKey(next), encodeManifest(next));
    return planOf(next);
  }

  /** What takeLine() would make with the line that it names. Changes nothing. */
  async plan(volumeId: string): Promise<RescuePlan> {
    const present = await this.present(volumeId);
    if (isBuried(present)) throw gone(volumeId);
    const { number: lineNumber, id: line } = await this.nextLine(volumeId, present.lineNumber);
    return planOf(firstOfLine(present, { line, lineNumber, writtenAtMs: this.parts.clock.wallTimeMs() }));
  }

  private async present(volumeId: string): Promise<VolumeManifest> {
    const { reader } = this.parts;
    const key = await reader.presentKey(volumeId);
    if (key === null) throw gone(volumeId);
    return await reader.manifest(key);
  }

  /** The one after all that were ever begun. */
  private async nextLine(volumeId: string, presentNumber: number): Promise<TakenLine> {
    const { reader, random } = this.parts;
    const id = random.hex(8);
    return { id, number: Math.max(presentNumber, await greatestMarker(reader.store, volumeId)) + 1 };
  }

  /** Writes the marker of the line; of two rescues at once one gets it. */
  private async mark(volumeId: string, name: string, { number, id }: TakenLine): Promise<void> {
    const { reader } = this.parts;
    const key = lineMarkerKey(volumeId, number);
    const content = Buffer.from(id);
    await reader.store.put(key, content, (await this.parts.conditionalPut()) ? { onlyNew: true } : {});
    // The store's own retry may have met our own object, so what counts is whose it is.
    const found = await reader.object(key);
    if (!found.equals(content)) throw overtaken(name);
  }
}

function planOf(manifest: VolumeManifest): RescuePlan {
  const { volumeId, origin, line, archivedLsn, archivedEpoch } = manifest;
  const history: HistoryRecord = {
    volumeId,
    beginBytes: manifest.beginBytes,
    archiverEpoch: manifest.archiverEpoch,
    line: { number: manifest.lineNumber, id: line },
    ...defaultHistoryPolicy,
    ...manifest.policy,
    historyMs: manifest.historyMs,
    origin,
    pins: manifest.pins.filter((pin) => pin.holder !== "reader"),
    snapshots: manifest.snapshots,
  };
  return {
    record: recordOf(manifest),
    history,
    replica: beginningOf(manifest),
    log: { line, lastLsn: archivedLsn, epoch: archivedEpoch },
    reached: reachedOf(manifest),
  };
}

function recordOf(manifest: VolumeManifest): VolumeRecord {
  const { volumeId: id, name, durability, createdAtMs, archivedLsn } = manifest;
  return { id, name, sizeBytes: sizeAt(manifest, archivedLsn), durability, createdAtMs, state: "active" };
}

/** Nothing archived: a new disk, or a clone that begins anew from its parent. */
function beginningOf(manifest: VolumeManifest): RemoteBeginning | null {
  const { volumeId, origin, line, archivedLsn, archivedEpoch } = manifest;
  if (archivedLsn > 0) {
    return { point: { volumeId, lsn: archivedLsn }, appliedLsn: archivedLsn, line, epoch: archivedEpoch };
  }
  if (origin === null) return null;
  return { point: { volumeId: origin.volumeId, lsn: origin.lsn }, appliedLsn: 0, line: null, epoch: 0 };
}

function reachedOf(manifest: VolumeManifest): RescuedVolume {
  const { name, volumeId, archivedLsn, line, lineNumber, pages, segments } = manifest;
  const last = segments.at(-1) ?? pages.at(-1);
  return {
    name,
    volumeId,
    sizeBytes: sizeAt(manifest, archivedLsn),
    lsn: archivedLsn,
    reachedMs: archivedLsn === 0 ? null : (last?.wallMaxMs ?? manifest.writtenAtMs),
    line,
    lineNumber,
  };
}

function byName(a: PresentManifest, b: PresentManifest): number {
  return a.manifest.name < b.manifest.name ? -1 : 1;
}

function gone(volumeId: string): VarveError {
  return new VarveError("UnknownVolumeError", "Invalid", `the bucket has no volume ${volumeId}`, {
    hint: "varve rescue --dry-run lists what it has.",
    fields: { volumeId },
  });
}

function overtaken(name: string): VarveError {
  return new VarveError("RescuedElsewhereError", "Fenced", `volume ${name} is being rescued elsewhere`, {
    hint: "Let that rescue end, or run this one again to take the volume over from it.",
    fields: { name },
  });
}
