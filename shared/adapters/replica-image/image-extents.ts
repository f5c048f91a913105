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
import type { ExtentTable } from "./extent-table.ts";
import { ExtentTouches, hourMs } from "./extent-touches.ts";
import { fillOperations } from "./fill-operations.ts";
import type { ImagePlace } from "./image-opening.ts";
import { readLastUse, writeLastUse } from "./last-use-file.ts";
import type { RemoteReader } from "./remote-reader.ts";
import type { Turns } from "./turns.ts";

const { extentBytes } = limits;
/** Extents that became remote again and again while they were filled. */
const fillAttemptsMax = 8;
const recentReadsMax = 256;
const cacheFillsMax = 2;
/** Extents that coldExtents() looks at before others get a turn: 1-2 µs each. */
const looksPerRound = 1024;

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
  readonly #parts: ImageExtentsParts;
  readonly #table: ExtentTable;
  readonly #touches: ExtentTouches;
  readonly #fills = new Map<number, Promise<number>>();
  /** Evicting: still in the file; remote once a checkpoint has said so, unless somebody writes before. */
  readonly #leaving = new Map<number, RemotePoint>();
  #leavingRevision = 0;
  /** Remote, but the file still holds their former bytes: punched after the checkpoint that says remote. */
  #unpunched: ExtentRun[] = [];
  #recordedRevision: number;
  #recordedPoints: readonly RemotePoint[];
  readonly #recentReads = new Set<number>();
  /** A point of this volume from this LSN on holds whatever is remote now. */
  #repointLsn: number;
  #tracksReads = false;
  #wanted: () => void = () => undefined;
  readonly #counters = { filledExtents: 0, filledBytes: 0, evictedExtents: 0 };

  constructor(parts: ImageExtentsParts) {
    this.#parts = parts;
    this.#table = parts.table;
    this.#touches = new ExtentTouches(parts.attachedLsn, this.#hour);
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
    return this.#table.revision + this.#leavingRevision;
  }

  get crowded(): boolean {
    return this.#table.crowded;
  }

  residency(): ResidencyState {
    const { extents, notLocal, partial } = this.#table;
    const { counters } = this.#parts.remote;
    const points = new Map<string, RemotePoint>();
    for (const point of [...this.#recordedPoints, ...this.#table.points(), ...this.#leaving.values()]) {
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
    if (point.volumeId !== this.#parts.place.volumeId || point.lsn < baseLsn)
      throw wrongPoint(point, baseLsn);
    const evictedBefore = this.#counters.evictedExtents;
    const chosen = await this.#parts.turns.take(async () => {
      if (!this.#table.takesPoints) return [];
      const mayLeave = extents.filter((extent) => this.#mayLeave(extent, baseLsn));
      for (const extent of mayLeave) this.#leaving.set(extent, point);
      this.#leavingRevision += 1;
      return mayLeave;
    });
    if (chosen.length === 0) return 0;
    try {
      await this.#parts.checkpoint();
    } finally {
      // What the checkpoint did not get to punch stays local.
      for (const extent of chosen) if (this.#leaving.get(extent) === point) this.#stay(extent);
    }
    return this.#counters.evictedExtents - evictedBefore;
  }

  #mayLeave(extent: number, baseLsn: number): boolean {
    return (
      extent >= 0 &&
      extent < this.#table.extents &&
      this.#table.isLocal(extent) &&
      !this.#leaving.has(extent) &&
      this.#touches.lsnOf(extent) <= baseLsn
    );
  }

  #stay(extent: number): void {
    if (this.#leaving.delete(extent)) this.#leavingRevision += 1;
  }

  takeRecentReads(): readonly number[] {
    const recent = [...this.#recentReads].reverse();
    this.#recentReads.clear();
    return recent;
  }

  onWanted(listener: () => void): void {
    this.#wanted = listener;
  }

  async coldExtents(baseLsn: number, beforeMs: number, most: number): Promise<readonly number[]> {
    this.#touches.hour = this.#hour;
    const beforeHour = Math.floor(beforeMs / hourMs);
    const found: number[] = [];
    let looked = 0;
    for (let at = this.#parts.file.nextData(0); at !== -1 && at < this.#table.sizeBytes; ) {
      const extent = Math.floor(at / extentBytes);
      if (this.#touches.hourOf(extent) < beforeHour && this.#mayLeave(extent, baseLsn)) found.push(extent);
      looked += 1;
      if (looked % looksPerRound === 0) await this.#letOthers();
      this.#parts.requireOpen();
      at = this.#parts.file.nextData((extent + 1) * extentBytes);
    }
    return found.sort((a, b) => this.#touches.hourOf(a) - this.#touches.hourOf(b)).slice(0, most);
  }

  #letOthers(): Promise<void> {
    const { clock } = this.#parts.place;
    return clock === null ? Promise.resolve() : new Promise((resolve) => clock.soon(resolve));
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
    // Newest last: a set keeps the order of insertion.
    this.#recentReads.delete(extent);
    this.#recentReads.add(extent);
    this.#wanted();
    if (this.#recentReads.size <= recentReadsMax) return;
    for (const oldest of this.#recentReads) {
      this.#recentReads.delete(oldest);
      return;
    }
  }

  /** In a turn, after the operations were carried out: entries up to `lsn`, with rebases at their places. */
  applied(operations: readonly FileOperation[], rebases: readonly Rebase[], lsn: number): void {
    let next = 0;
    for (const [index, operation] of operations.entries()) {
      for (; rebases[next]?.operationsBefore === index; next += 1) this.#rebase(rebases[next]);
      this.#note(operation, lsn);
    }
    for (; next < rebases.length; next += 1) this.#rebase(rebases[next]);
    if (rebases.length > 0 || this.#table.crowded) this.#wanted();
  }

  #note(operation: FileOperation, lsn: number): void {
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
    if (this.#leaving.size === 0) return;
    const first = Math.floor(start / extentBytes);
    for (const extent of this.#leaving.keys()) {
      if (extent >= first && extent * extentBytes < end) this.#stay(extent);
    }
  }

  /** The disk is what it was at `toLsn` again: extents that differ are remote, whatever the file holds of them. */
  #rebase(rebase: Rebase | undefined): void {
    if (rebase === undefined) return;
    const { toLsn, lsn } = rebase;
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
      residency: this.#table.record(this.#leaving),
      revision: this.#revision,
      leaving: new Map(this.#leaving),
      unpunched: [...this.#unpunched],
    };
  }

  /** The checkpoint is durable: what it says is remote may leave the file, unless it came back meanwhile. In a turn. */
  async recordedAs(noted: NotedExtents): Promise<void> {
    this.#recordedRevision = noted.revision;
    this.#recordedPoints = noted.residency === "full" ? [] : noted.residency.points;
    const gone: ExtentRun[] = [];
    for (const [extent, point] of noted.leaving) {
      if (this.#leaving.get(extent) !== point) continue;
      this.#leaving.delete(extent);
      this.#table.setRemote(extent, 1, point);
      this.#counters.evictedExtents += 1;
      gone.push({ first: extent, count: 1 });
      if (point.volumeId === this.#parts.place.volumeId && point.lsn >= this.#repointLsn) {
        this.#table.repointOwn(point);
      }
    }
    const unpunched = noted.unpunched.length;
    this.#parts.remote.keepOnly([
      ...this.#table.points(),
      ...this.#recordedPoints,
      ...this.#leaving.values(),
    ]);
    if (gone.length + unpunched === 0) return;
    await this.#punch([...gone, ...noted.unpunched]);
    this.#unpunched.splice(0, unpunched);
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
    for (const extent of this.#leaving.keys()) this.#stay(extent);
  }
}

function wrongPoint({ volumeId, lsn }: RemotePoint, baseLsn: number): VarveError {
  return new VarveError(
    "EvictPointError",
    "Invalid",
    `extents can't be read from volume id ${volumeId} at LSN ${lsn} when they are given back to a base at LSN ${baseLsn}`,
    {
      hint: "Name a point of the volume itself that is not before the base.",
      fields: { volumeId, lsn, baseLsn },
    },
  );
}

type FetchedSlab = Parameters<typeof fillOperations>[2];
