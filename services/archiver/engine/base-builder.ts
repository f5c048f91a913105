/*
 * Takes fuzzy bases of one volume while it is written to: reads each extent touched since the base before out of the image, stores what
 * changed as chunks, and publishes a base once the log up to its `e` is archived. Started by volume-archiver.ts when the schedule says
 * that one is due, or somebody asks. The rules of s and e are in docs/specs/archive.md#bases.
 *
 *   due ─► s chosen ─► extents read (slowly) ─► e known ─► log up to e archived ─► pages, root ─► manifest       any ─► given up
 */
import type { BaseContent, BaseRef, VolumeManifest } from "#shared/domain/archive.ts";
import { extentsPerBasePage } from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import type { ArchiveSubject, BaseObjects } from "#shared/ports/archive.ts";
import type { ArchiveParts } from "./archive-parts.ts";
import type { BaseSchedule, BaseTask } from "./base-schedule.ts";
import { fetchBase, fetchBasePage, givenUp, writeBase } from "./base-writer.ts";
import type { BucketPatience } from "./bucket-patience.ts";
import { ChunkWriter } from "./chunk-writer.ts";
import { ExtentReader } from "./extent-reader.ts";
import type { ManifestChange } from "./manifest-publisher.ts";

export interface BaseBuilderOptions {
  readonly parts: ArchiveParts;
  readonly patience: BucketPatience;
  readonly subject: ArchiveSubject;
  readonly schedule: BaseSchedule;
  /** The published manifest; there is one. */
  readonly present: () => VolumeManifest;
  /** Resolves when a manifest names the log up to there. */
  readonly archive: (lsn: number) => Promise<void>;
  readonly publish: (change: ManifestChange) => Promise<VolumeManifest>;
  /** The newest rebase entry that is durable, archived or not. */
  readonly lastRebaseLsn: () => number;
  /** The base is published; these objects are new with it. */
  readonly onBase: (base: BaseRef, objects: BaseObjects) => void;
}

interface BegunBase {
  readonly s: number;
  /** At `s`. */
  readonly sizeBytes: number;
  readonly task: BaseTask;
}

export class BaseBuilder {
  private readonly options: BaseBuilderOptions;
  private stopped = false;
  /** The same s is not tried twice, unless its base was published and is gone again: the bucket lost it before it was held. */
  private lastS = -1;
  private lastKey: string | null = null;
  /** Bases that could not be read: the next one reads every extent instead. */
  private readonly distrusted = new Set<string>();
  readonly counters = { bases: 0, basesGivenUp: 0, chunksNew: 0, chunkBytesNew: 0, extentsRead: 0 };

  constructor(options: BaseBuilderOptions) {
    this.options = options;
  }

  stop(): void {
    this.stopped = true;
  }

  /** Takes one base. Rejects Retry where it can't be had now: nothing is lost, a later one may. */
  async build(): Promise<BaseRef> {
    const begun = await this.begin();
    const { schedule } = this.options;
    try {
      const base = await this.buildFrom(begun);
      this.counters.bases += 1;
      this.lastKey = base.key;
      return base;
    } catch (cause) {
      schedule.abandoned(begun.task);
      this.counters.basesGivenUp += 1;
      const { previous } = begun.task;
      if (previous !== null && cause instanceof VarveError && cause.kind === "Corrupt") {
        this.distrusted.add(previous.key);
      }
      throw cause;
    }
  }

  /**
   * `s` is the archived LSN, once the image has all of it: then the touched extents are those of whole segments. Manifest, size
   * and touched extents are taken in one go, so that they speak of the same log.
   */
  private async begin(): Promise<BegunBase> {
    const { present, subject, parts, schedule } = this.options;
    for (let waits = 0; ; waits += 1) {
      this.requireWanted();
      await schedule.prepare(present);
      const { archivedLsn: s, sizeBytes, bases } = present();
      const isLost = this.lastKey !== null && !bases.some(({ key }) => key === this.lastKey);
      if (s === 0 || (s === this.lastS && !isLost)) throw givenUp("no new log is archived");
      if (schedule.isReady && subject.image.state().appliedLsn >= s) {
        this.lastS = s;
        this.lastKey = null;
        return { s, sizeBytes, task: schedule.take() };
      }
      if (waits === applyWaitsMax) throw givenUp("the image is behind");
      await new Promise<void>((resolve) => {
        parts.clock.after(applyWaitMs, resolve);
      });
    }
  }

  private async buildFrom({ s, sizeBytes, task }: BegunBase): Promise<BaseRef> {
    const { parts, patience, subject, archive } = this.options;
    const isUnwanted = (): boolean => this.stopped;
    const ref = this.trusted(task);
    const previous = ref === null ? null : await fetchBase(parts.store, patience, ref.key, isUnwanted);
    await this.learnChunks();
    const chunks = new ChunkWriter({ parts, patience, isUnwanted });
    try {
      const reader = new ExtentReader({ parts, image: subject.image, chunks, isUnwanted });
      await reader.readAll(sizeBytes, previous === null ? null : task.dirty, (extent) =>
        this.previousName(previous, extent),
      );
      this.counters.extentsRead += reader.extentsRead;
      // Bytes of entries up to here may have been read; log from s on to at least here makes every point exact.
      const e = subject.image.state().begunLsn;
      invariant(e >= s, "a base ends where it began or later");
      this.requireNoRebase(s);
      await archive(e);
      const owner = {
        volumeId: subject.record.id,
        line: subject.log.line,
        archiverEpoch: subject.archiverEpoch,
      };
      const { names, zeroes } = reader;
      const draft = { ...owner, s, e, sizeBytes, previous, names, zeroes, newChunkBytes: chunks.newBytes };
      const written = await writeBase(parts, patience, draft, isUnwanted);
      try {
        parts.failpoint("base");
        await this.publish(written.ref, task, chunks);
      } finally {
        for (const { key } of written.stored) parts.uploads.end(key);
      }
      this.counters.chunksNew += chunks.stored.length;
      this.counters.chunkBytesNew += chunks.newBytes;
      this.tellChunks(written.ref, names);
      const stored = [...chunks.stored, ...written.stored];
      this.options.onBase(written.ref, { stored, borrowedKeys: [...chunks.borrowedKeys] });
      return written.ref;
    } finally {
      chunks.end();
    }
  }

  private async publish(base: BaseRef, task: BaseTask, chunks: ChunkWriter): Promise<void> {
    const previous = this.trusted(task);
    this.options.schedule.expect(base, task);
    await this.options.publish((manifest) => {
      this.requireNoRebase(base.s);
      if (manifest.archivedLsn < base.e) throw givenUp("its log is not archived");
      if (manifest.gaps.some((gap) => gap.toLsn - 1 > base.s)) throw givenUp("history was dropped meanwhile");
      const stands = (key: string): boolean => manifest.bases.some((one) => one.key === key);
      if (previous !== null && !stands(previous.key)) throw givenUp("the base before it is gone");
      if (!chunks.isSound) throw givenUp("a chunk that it shares is gone");
      // Only one that could not be read gives its place up: of any other the log may have gone already.
      const same = manifest.bases.find((one) => one.s === base.s && one.e === base.e);
      if (same !== undefined && !this.distrusted.has(same.key))
        throw givenUp("there is one of the same entries");
      const bases = [...manifest.bases.filter((one) => one !== same), base];
      bases.sort((a, b) => a.s - b.s || a.e - b.e);
      return { ...manifest, bases };
    });
  }

  /** The base to build on, unless it could not be read. */
  private trusted({ previous }: BaseTask): BaseRef | null {
    return previous !== null && this.distrusted.has(previous.key) ? null : previous;
  }

  /** A page of the base before is kept while its extents are read, which come in order. */
  private page: { readonly key: string; readonly names: readonly (string | null)[] } | null = null;

  private async previousName(previous: BaseContent | null, extent: number): Promise<string | null> {
    const { parts, patience } = this.options;
    const key = previous?.pages[Math.floor(extent / extentsPerBasePage)] ?? null;
    if (key === null) return null;
    if (this.page?.key !== key) {
      const { chunks } = await fetchBasePage(parts.store, patience, key, () => this.stopped);
      this.page = { key, names: chunks };
    }
    return this.page.names[extent % extentsPerBasePage] ?? null;
  }

  /** The chunks of bases in this process that nobody has told of: a clone's first base is mostly its parent's. */
  private async learnChunks(): Promise<void> {
    const { parts, patience } = this.options;
    const isUnwanted = (): boolean => this.stopped;
    for (const holder of parts.chunks.takeUnknownBases()) {
      const base = await fetchBase(parts.store, patience, holder.baseKey, isUnwanted);
      for (const key of base.pages) {
        if (key === null) continue;
        const { chunks } = await fetchBasePage(parts.store, patience, key, isUnwanted);
        for (const name of chunks) if (name !== null) parts.chunks.add(name, holder);
      }
    }
  }

  private tellChunks(base: BaseRef, names: ReadonlyMap<number, string | null>): void {
    const holder = { volumeId: this.options.subject.record.id, baseKey: base.key };
    for (const name of names.values()) if (name !== null) this.options.parts.chunks.add(name, holder);
  }

  private requireNoRebase(s: number): void {
    if (this.options.lastRebaseLsn() > s) throw givenUp("the volume was rolled back meanwhile");
  }

  private requireWanted(): void {
    if (this.stopped) throw givenUp("the archiver stops");
  }
}

/** The applier gathers for 10 ms; a busy one is a second behind. */
const applyWaitMs = 50;
const applyWaitsMax = 600;
