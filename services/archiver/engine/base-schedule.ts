/*
 * Keeps in mind what log one volume's next base has to look at: bytes and touched extents since the base that it builds on. Told of
 * each published manifest; what was published before this process is read from footers and index pages, once, when it first
 * matters. Next: base-builder.ts.
 */
import type { BaseRef, SegmentSummary, VolumeManifest } from "#shared/domain/archive.ts";
import { baseToBuildOn, isBaseDue, isBaseMissing, logBytesLeast } from "#shared/domain/base-plan.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { ArchiveParts } from "./archive-parts.ts";
import type { BucketPatience } from "./bucket-patience.ts";
import { DirtyExtents } from "./dirty-extents.ts";
import { fetchTails } from "./segment-tails.ts";

/** What a base under construction took over. */
export interface BaseTask {
  readonly previous: BaseRef | null;
  /** Touched since `previous.s`; nothing where there is none: all extents are read. */
  readonly dirty: DirtyExtents;
  readonly logBytes: number;
  readonly isWhole: boolean;
  /** Which beginning of the account it was taken from: after another one nothing is known of what came since. */
  readonly account: number;
}

export class BaseSchedule {
  private readonly parts: ArchiveParts;
  private readonly patience: BucketPatience;
  /** The base to build on, as far as `dirty` and `logBytes` know. */
  private previous: BaseRef | null = null;
  private dirty = new DirtyExtents();
  private logBytes = 0;
  /** False where segments after `previous.s` are not in `dirty`. */
  private isWhole = true;
  /** Grows when `dirty` begins anew with another base to build on; 0: nothing was published yet. */
  private account = 0;
  /** The base that is being published: `dirty` is what came after its `s` already. */
  private expected: BaseRef | null = null;

  constructor(parts: ArchiveParts, patience: BucketPatience) {
    this.parts = parts;
    this.patience = patience;
  }

  /** `manifest` was published; it names these segments for the first time. */
  published(manifest: VolumeManifest, added: readonly SegmentSummary[]): void {
    const previous = baseToBuildOn(manifest);
    if (this.expected !== null && previous?.key === this.expected.key) this.previous = this.expected;
    if (this.account === 0 || previous?.key !== this.previous?.key) {
      this.restart(manifest, previous);
      return;
    }
    for (const summary of added) {
      this.dirty.add(summary.extents);
      this.logBytes += summary.recordBytes;
    }
  }

  /** Whether a base is due now; may fetch footers. */
  async isDue(manifest: VolumeManifest): Promise<boolean> {
    if (isBaseMissing(manifest)) return true;
    const { baseLogBytesMin, baseLogBytesMax } = this.parts.options;
    if (this.logBytes < logBytesLeast(baseLogBytesMin)) return false;
    if (!this.isWhole) await this.load(manifest);
    return isBaseDue({
      logBytes: this.logBytes,
      dirtyBytes: this.dirty.bytes,
      bases: manifest.bases.length,
      logBytesMin: baseLogBytesMin,
      logBytesMax: baseLogBytesMax,
    });
  }

  /** Reads what take() needs. */
  async prepare(present: () => VolumeManifest): Promise<void> {
    // A manifest that comes while footers are read may name another base.
    for (let attempt = 0; !this.isReady; attempt += 1) {
      if (attempt === loadsMax) throw new VarveError("BaseUnsettled", "Retry", "bases change too fast");
      await this.load(present());
    }
  }

  get isReady(): boolean {
    return this.isWhole || this.previous === null;
  }

  /**
   * A base begins now: everything up to the present manifest's archived LSN is its own, what is published from now on the next
   * one's. Only where isReady.
   */
  take(): BaseTask {
    const { previous, dirty, logBytes, isWhole, account } = this;
    this.dirty = new DirtyExtents();
    this.logBytes = 0;
    return { previous, dirty, logBytes, isWhole, account };
  }

  /**
   * The base of the last task is about to be published. If another base became the one to build on meanwhile (a rollback, an exact
   * base), `dirty` begins there: what came since this task is read from footers once the base stands.
   */
  expect(base: BaseRef, task: BaseTask): void {
    if (task.account !== this.account) return;
    this.expected = base;
    // What came since is whole: take() began it.
    this.isWhole = true;
  }

  /** It was given up: its extents are the next one's, too. */
  abandoned(task: BaseTask): void {
    if (task.account !== this.account) return;
    if (this.expected !== null) this.isWhole = task.isWhole;
    this.expected = null;
    this.dirty.addAll(task.dirty);
    this.logBytes += task.logBytes;
  }

  private restart(manifest: VolumeManifest, previous: BaseRef | null): void {
    const s = previous?.s ?? 0;
    this.account += 1;
    this.expected = null;
    this.previous = previous;
    this.dirty = new DirtyExtents();
    const after = [...manifest.pages, ...manifest.segments].filter((part) => part.lastLsn > s);
    this.logBytes = 0;
    for (const { firstLsn, lastLsn, recordBytes } of after) {
      // Of a page that the base begins in, the part behind it.
      const share = (lastLsn - Math.max(s, firstLsn - 1)) / (lastLsn - firstLsn + 1);
      this.logBytes += recordBytes * share;
    }
    this.isWhole = after.length === 0;
  }

  private async load(manifest: VolumeManifest): Promise<void> {
    const { store, worker } = this.parts;
    const { previous, dirty } = this;
    const s = previous?.s ?? 0;
    const pages: Uint8Array[] = [];
    for (const { key, lastLsn } of manifest.pages) {
      if (lastLsn <= s) continue;
      const object = await this.patience.run("read an index page", () => store.get(key));
      if (object === null) throw new VarveError("IndexPageMissing", "Corrupt", `${key} is not in the bucket`);
      pages.push(Uint8Array.from(object));
    }
    const refs = manifest.segments.filter((segment) => segment.lastLsn > s);
    const tails = await this.patience.run("read segment footers", () => fetchTails(store, refs));
    const runs = await worker.touched(tails, pages, s);
    if (dirty !== this.dirty || previous?.key !== this.previous?.key) return;
    dirty.add(runs);
    this.isWhole = true;
  }
}

const loadsMax = 3;
