/*
 * Residency of one open image: which extents are remote, filling them, giving them back. Changes of file and table go by
 * turns with the applies of raw-file.ts, which owns this; the bucket is asked outside of any turn. Called by the filler and
 * tiering of services/storage/engine/. States, transitions and invariants: docs/specs/residency.md.
 */
import type { ExtentRun } from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { RecordedExtents } from "#shared/formats/extent-table.ts";
import type { BlockFile, FileOperation } from "#shared/ports/file-store.ts";
import type {
  EvictRequest,
  RemotePoint,
  ReplicaExtents,
  ResidencyState,
} from "#shared/ports/replica-residency.ts";
import type { Rebase } from "./apply-plan.ts";
import { findColdExtents } from "./cold-extents.ts";
import type { ExtentTable } from "./extent-table.ts";
import { ExtentTouches, hourMs } from "./extent-touches.ts";
import { fillOperations } from "./fill-operations.ts";
import type { ImagePlace } from "./image-opening.ts";
import { readLastUse, writeLastUse } from "./last-use-file.ts";
import { LeavingExtents, requireOwnPoint } from "./leaving-extents.ts";
import { MendedExtents } from "./mended-extents.ts";
import { RecentReads } from "./recent-reads.ts";
import type { RemoteReader } from "./remote-reader.ts";
import type { Turns } from "./turns.ts";

const { extentBytes } = limits;
/** Extents that became remote again and again while they were filled. */
const fillAttemptsMax = 8;
const cacheFillsMax = 2;

export interface ImageExtentsParts {
  readonly file: BlockFile;
  readonly table: ExtentTable;
  readonly remote: RemoteReader;
  readonly turns: Turns;
  /** Entries up to it were applied when the image was attached. */
  readonly attachedLsn: number;
  readonly place: ImagePlace;
  readonly changedExtents: ((toLsn: number, lsn: number) => readonly ExtentRun[] | null) | null;
  readonly requireOpen: () => void;
  /** What was written to the file outside of an apply, for the next checkpoint. */
  readonly onWritten: (operations: readonly FileOperation[]) => void;
  /** A checkpoint of the table as it is now, after a sync. */
  readonly checkpoint: () => Promise<unknown>;
}

/** What a checkpoint noted of the table before its sync. */
export interface NotedExtents {
  readonly residency: "full" | RecordedExtents;
  readonly revision: number;
  readonly leaving: ReadonlyMap<number, RemotePoint>;
  readonly unpunched: readonly ExtentRun[];
}

export class ImageExtents implements ReplicaExtents {
  readonly mending: MendedExtents;
  readonly #parts: ImageExtentsParts;
  readonly #table: ExtentTable;
  readonly #touches: ExtentTouches;
  readonly #fills = new Map<number, Promise<number>>();
  readonly #leaving = new LeavingExtents();
  /** Remote, but the file still holds their former bytes: punched after the checkpoint that says remote. */
  #unpunched: ExtentRun[] = [];
  #recordedRevision: number;
  #recordedPoints: readonly RemotePoint[];
  readonly #recentReads = new RecentReads();
  /** A point of this volume from this LSN on holds whatever is remote now. */
  #repointLsn: number;
  #tracksReads = false;
  #wanted: () => void = () => undefined;
  readonly #counters = { filledExtents: 0, filledBytes: 0, evictedExtents: 0 };

  constructor(parts: ImageExtentsParts) {
    this.#parts = parts;
    this.#table = parts.table;
    this.#touches = new ExtentTouches(parts.attachedLsn, this.#hour);
    this.mending = new MendedExtents(parts, this.#touches);
    this.#recordedRevision = this.#revision;
    this.#recordedPoints = parts.table.points();
    this.#repointLsn = parts.attachedLsn;
  }

  get #hour(): number {
    return Math.floor((this.#parts.place.clock?.wallTimeMs() ?? 0) / hourMs);
  }

  /** False: every byte is in the file, and nobody wants to know what is read. */
  get watchesReads(): boolean {
    return this.#tracksReads || !this.#table.allLocal;
  }

  /** Whether the last checkpoint says what holds now. */
  get recorded(): boolean {
    return this.#recordedRevision === this.#revision && this.#unpunched.length === 0;
  }

  get #revision(): number {
    return this.#table.revision + this.#leaving.revision;
  }

  get crowded(): boolean {
    return this.#table.crowded;
  }

  residency(): ResidencyState {
    const { extents, notLocal, partial } = this.#table;
    const { counters } = this.#parts.remote;
    const points = new Map<string, RemotePoint>();
    for (const point of [
      ...this.#recordedPoints,
      ...this.#table.points(),
      ...this.#leaving.points.values(),
    ]) {
      points.set(`${point.volumeId}@${point.lsn}`, point);
    }
    return {
      path: this.#parts.place.name.path,
      extents,
      localExtents: extents - notLocal,
      remoteExtents: notLocal - partial,
      partialExtents: partial,
      points: [...points.values()],
      counters: {
        ...this.#counters,
        remoteReads: counters.reads,
        remoteReadBytes: counters.bytes,
        remoteReadFailures: counters.failures,
      },
    };
  }

  isLocal(extent: number): boolean {
    return this.#table.isLocal(extent);
  }

  isRangeLocal(offset: number, length: number): boolean {
    return this.#table.isRangeLocal(offset, length);
  }

  nextRemote(from: number): number {
    return this.#table.nextRemote(from);
  }

  partialExtents(most: number): readonly number[] {
    return this.#table.somePartial(most);
  }

  fill(extent: number): Promise<number> {
    const known = this.#fills.get(extent);
    if (known !== undefined) return known;
    const fill = this.#fill(extent).finally(() => this.#fills.delete(extent));
    this.#fills.set(extent, fill);
    return fill;
  }

  async #fill(extent: number): Promise<number> {
    let written = 0;
    for (let attempt = 0; attempt < fillAttemptsMax; attempt += 1) {
      const point = this.#table.pointOf(extent);
      const start = extent * extentBytes;
      const length = Math.min(extentBytes, this.#table.sizeBytes - start);
      if (point === null || length <= 0) return written;
      this.#parts.requireOpen();
      const fetched = await this.#parts.remote.fetch(point, start, length);
      try {
        written += await this.#parts.turns.take(() => this.#store(extent, point, fetched.slab));
      } finally {
        fetched.release();
      }
    }
    throw new VarveError("ExtentsUnsettled", "Retry", `extent ${extent} was moved while it was filled`, {
      hint: "Fill it again.",
      fields: { extent },
    });
  }

  /** In a turn: what is not in the file by now is written from `slab`, which holds the extent as of `point`. */
  async #store(extent: number, point: RemotePoint, slab: FetchedSlab): Promise<number> {
    this.#parts.requireOpen();
    if (this.#table.pointOf(extent) !== point) return 0;
    const operations = fillOperations(this.#table, extent, slab);
    try {
      await this.#parts.file.applyAll(operations);
    } catch (cause) {
      // What was written of it stays unused; on a full disk its room is needed.
      await this.#punch([{ first: extent, count: 1 }]).catch(() => undefined);
      throw cause;
    }
    this.#parts.onWritten(operations);
    // Who has it fetched wants it: it is not cold.
    this.#touches.read(extent * extentBytes, 1);
    this.#table.markLocal(extent * extentBytes, (extent + 1) * extentBytes);
    let bytes = 0;
    for (const operation of operations) if (operation.kind === "write") bytes += operation.piece.length;
    this.#counters.filledExtents += 1;
    this.#counters.filledBytes += bytes;
    return bytes;
  }

  async cache(offset: number, length: number): Promise<void> {
    if (this.#table.allLocal) return;
    const end = Math.ceil((offset + length) / extentBytes);
    let next = Math.floor(offset / extentBytes);
    const worker = async (): Promise<void> => {
      for (;;) {
        next = this.#table.nextRemote(next);
        if (next === -1 || next >= end) {
          next = end;
          return;
        }
        const extent = next;
        next += 1;
        await this.fill(extent);
      }
    };
    await Promise.all(Array.from({ length: cacheFillsMax }, worker));
  }

  async evict({ point, baseLsn, extents }: EvictRequest): Promise<number> {
    this.#parts.requireOpen();
    requireOwnPoint(point, this.#parts.place.volumeId, baseLsn);
    const evictedBefore = this.#counters.evictedExtents;
    const chosen = await this.#parts.turns.take(async () => {
      if (!this.#table.takesPoints) return [];
      const mayLeave = extents.filter((extent) => this.#mayLeave(extent, baseLsn));
      this.#leaving.begin(mayLeave, point);
      return mayLeave;
    });
    if (chosen.length === 0) return 0;
    try {
      await this.#parts.checkpoint();
    } finally {
      // What the checkpoint did not get to punch stays local.
      for (const extent of chosen) if (this.#leaving.points.get(extent) === point) this.#leaving.stay(extent);
    }
    return this.#counters.evictedExtents - evictedBefore;
  }

  #mayLeave(extent: number, baseLsn: number): boolean {
    return (
      extent >= 0 &&
      extent < this.#table.extents &&
      this.#table.isLocal(extent) &&
      !this.#leaving.points.has(extent) &&
      this.#touches.lsnOf(extent) <= baseLsn
    );
  }

  takeRecentReads(): readonly number[] {
    return this.#recentReads.take();
  }

  onWanted(listener: () => void): void {
    this.#wanted = listener;
  }

  coldExtents(baseLsn: number, beforeMs: number, most: number): Promise<readonly number[]> {
    this.#touches.hour = this.#hour;
    const { file, place, requireOpen } = this.#parts;
    const hourOf = (extent: number): number => this.#touches.hourOf(extent);
    const mayLeave = (extent: number): boolean => this.#mayLeave(extent, baseLsn);
    const search = { file, clock: place.clock, hourOf, mayLeave, requireOpen };
    return findColdExtents(search, Math.floor(beforeMs / hourMs), most);
  }

  trackReads(on: boolean): void {
    this.#tracksReads = on;
    this.#touches.hour = this.#hour;
  }

  /** At attach. */
  loadLastUse(): Promise<void> {
    return readLastUse(this.#parts.place, this.#touches, this.#table.extents);
  }

  async saveLastUse(): Promise<void> {
    this.#touches.hour = this.#hour;
    if (this.#tracksReads) await writeLastUse(this.#parts.place, this.#touches, this.#table.extents);
  }

  noteRead(offset: number, length: number): void {
    if (this.#tracksReads) this.#touches.read(offset, length);
  }

  noteRemoteRead(extent: number): void {
    this.#recentReads.add(extent);
    this.#wanted();
  }

  /** In a turn, after the operations were carried out: entries up to `lsn`, with rebases at their places. */
  applied(operations: readonly FileOperation[], rebases: readonly Rebase[], lsn: number): void {
    let done = 0;
    for (const rebase of rebases) {
      for (; done < rebase.operationsBefore; done += 1) this.#note(operations[done], lsn);
      this.#rebase(rebase);
    }
    for (; done < operations.length; done += 1) this.#note(operations[done], lsn);
    if (rebases.length > 0 || this.#table.crowded) this.#wanted();
  }

  #note(operation: FileOperation | undefined, lsn: number): void {
    if (operation === undefined) return;
    if (operation.kind === "truncate") {
      const before = this.#table.sizeBytes;
      this.#table.resize(operation.sizeBytes);
      // From the shorter end on: what was cut, or the part of the last extent that is new.
      const from = Math.min(before, operation.sizeBytes);
      this.#changed(from, Math.max(before, operation.sizeBytes, from + 1), lsn);
      return;
    }
    const length = operation.kind === "write" ? operation.piece.length : operation.length;
    this.#table.markLocal(operation.offset, operation.offset + length);
    this.#changed(operation.offset, operation.offset + length, lsn);
  }

  #changed(start: number, end: number, lsn: number): void {
    this.#touches.wrote(start, end, lsn);
    this.#leaving.changed(start, end);
  }

  /** The disk is what it was at `toLsn` again: extents that differ are remote, whatever the file holds of them. */
  #rebase({ toLsn, lsn }: Rebase): void {
    const point = { volumeId: this.#parts.place.volumeId, lsn: toLsn };
    const all = [{ first: 0, count: this.#table.extents }];
    const changed = this.#table.takesPoints ? (this.#parts.changedExtents?.(toLsn, lsn) ?? all) : all;
    for (const { first, count } of changed) {
      const end = Math.min(first + count, this.#table.extents);
      if (end <= first) continue;
      this.#table.setRemote(first, end - first, point);
      this.#unpunched.push({ first, count: end - first });
      this.#changed(first * extentBytes, end * extentBytes, lsn);
    }
    this.#repointLsn = Math.max(this.#repointLsn, lsn);
  }

  /** In a turn, before a checkpoint's sync. */
  note(): NotedExtents {
    return {
      residency: this.#table.record(this.#leaving.points),
      revision: this.#revision,
      leaving: new Map(this.#leaving.points),
      unpunched: [...this.#unpunched],
    };
  }

  /** The checkpoint is durable: what it says is remote may leave the file, unless it came back meanwhile. In a turn. */
  async recordedAs(noted: NotedExtents): Promise<void> {
    this.#recordedRevision = noted.revision;
    this.#recordedPoints = noted.residency === "full" ? [] : noted.residency.points;
    const gone: ExtentRun[] = [];
    for (const [extent, point] of noted.leaving) {
      if (!this.#leaving.leave(extent, point)) continue;
      this.#table.setRemote(extent, 1, point);
      this.#counters.evictedExtents += 1;
      gone.push({ first: extent, count: 1 });
      if (point.volumeId === this.#parts.place.volumeId && point.lsn >= this.#repointLsn) {
        this.#table.repointOwn(point);
      }
    }
    const punched = new Set([...noted.unpunched, ...gone]);
    // A punch that fails is made up for by the next checkpoint.
    this.#unpunched.push(...gone);
    this.#parts.remote.keepOnly([
      ...this.#table.points(),
      ...this.#recordedPoints,
      ...this.#leaving.points.values(),
    ]);
    if (punched.size === 0) return;
    await this.#punch([...punched]);
    this.#unpunched = this.#unpunched.filter((run) => !punched.has(run));
  }

  /** Gives back what the file holds of ranges that are not local. */
  async #punch(runs: readonly ExtentRun[]): Promise<void> {
    const operations: FileOperation[] = [];
    for (const { first, count } of runs) {
      const end = Math.min((first + count) * extentBytes, this.#table.sizeBytes);
      this.#table.visit(first * extentBytes, Math.max(end, first * extentBytes), (from, to, point) => {
        if (point !== null) operations.push({ kind: "punch", offset: from, length: to - from });
      });
    }
    if (operations.length > 0) await this.#parts.file.applyAll(operations);
  }

  /** After a crash the file may hold parts of what is remote. */
  punchAll(): Promise<void> {
    return this.#punch([{ first: 0, count: this.#table.extents }]);
  }

  /** Before a clean detach: nothing leaves any more. */
  settle(): void {
    this.#leaving.stayAll();
  }
}

type FetchedSlab = Parameters<typeof fillOperations>[2];
