/*
 * Cuts one volume's durable log into segments and uploads them: several at once, handed to the publisher in order. Told of each
 * durable batch; goes to work when a segment's worth is there, when its oldest entry is a minute old, or when somebody asks. A
 * busy volume's segments fill from memory (live-log.ts), others are read from the log. Idle it has no timer and no memory.
 * Next: manifest-publisher.ts.
 *
 *   durable ─8 MiB, 60 s or demand─► gathered ─archive thread─► sealed ─PUT─► uploaded ─takeReady(), in order─► published
 */
import { toVarveError, type VarveError } from "#shared/domain/errors.ts";
import type { SegmentStream } from "#shared/formats/segment-object.ts";
import type { ArchivedLog, DurableBatch } from "#shared/ports/archive.ts";
import type { SealedSegment } from "#shared/ports/archive-worker.ts";
import type { Timer } from "#shared/ports/clock.ts";
import type { ArchiveParts } from "./archive-parts.ts";
import type { BucketPatience } from "./bucket-patience.ts";
import { GatheredLog, logBreaks } from "./gathered-log.ts";
import { LiveLog } from "./live-log.ts";
import { ManifestPace } from "./manifest-pace.ts";

/** A sealed segment without its bytes. */
export type UploadedSegment = Omit<SealedSegment, "object" | "sha256" | "memory"> & {
  /** Its last 32 bytes: the SHA-256 of the rest. */
  readonly digest: Uint8Array;
};

export interface SealerOptions {
  readonly parts: ArchiveParts;
  readonly patience: BucketPatience;
  readonly log: ArchivedLog;
  readonly volumeId: string;
  readonly archiverEpoch: number;
  /** The oldest segment that was not taken is in the bucket: another is, too, somebody waits for it, or its time has come. */
  readonly onReady: () => void;
  readonly onFailed: (error: VarveError) => void;
}

interface SegmentJob {
  readonly firstLsn: number;
  readonly lastLsn: number;
  uploaded: UploadedSegment | null;
}

export class LogSealer {
  private readonly options: SealerOptions;
  /** First entry that is in no job. */
  private nextLsn = 1;
  /** Checksum of the record before it; null where the log before it is unknown (a gap). */
  private chain: bigint | null = 0n;
  private jobs: SegmentJob[] = [];
  /** Batches from here on were told to follow(); those in no job yet have so many bytes. */
  private countedFromLsn = Number.POSITIVE_INFINITY;
  private countedBytes = 0;
  /** The same of what is in no job and came before; null where it was not read yet. */
  private backlogBytes: number | null = null;
  private demandLsn = 0;
  private timer: Timer | null = null;
  private running = false;
  private stopped = false;
  /** Grows when jobs are thrown away (drop history). */
  private generation = 0;
  private readonly live: LiveLog;
  private readonly pace: ManifestPace;
  /** The last segment was cut because it was full: the next will be, too. */
  private busy = false;
  readonly counters = { segments: 0, segmentBytes: 0, recordBytes: 0 };

  constructor(options: SealerOptions) {
    this.options = options;
    const { parts, volumeId, archiverEpoch, log } = options;
    const owner = { volumeId, line: log.line, archiverEpoch };
    this.pace = new ManifestPace({
      clock: parts.clock,
      everyMs: parts.options.manifestEveryMs,
      onDue: () => this.told(),
    });
    this.live = new LiveLog({ parts, owner, isWhole: (gathered) => this.isWhole(gathered) });
  }

  /** Everything up to `lsn` is archived or given up; jobs under way are thrown away. */
  begin(lsn: number, chain: bigint | null): void {
    this.generation += 1;
    this.live.clear();
    this.jobs = [];
    this.nextLsn = lsn + 1;
    this.chain = chain;
    this.countedFromLsn = this.options.log.state().durableLsn + 1;
    this.countedBytes = 0;
    this.backlogBytes = null;
    this.pump();
  }

  /** Everything up to here is in a job, or was when it began. */
  get sealedLsn(): number {
    return this.nextLsn - 1;
  }

  /** A batch became durable. */
  follow(batch: DurableBatch): void {
    if (batch.firstLsn < this.countedFromLsn) return;
    this.countedBytes += batch.recordBytes;
    // Behind a backlog too: what lies between is read from the log, up to here.
    this.followLive(batch);
    if (this.running) return;
    if (this.isWanted()) this.pump();
    else this.armTimer();
  }

  /** Seals everything up to `lsn` without waiting for more. */
  demand(lsn: number): void {
    this.demandLsn = Math.max(this.demandLsn, lsn);
    this.pump();
    this.told(); // what is uploaded already, and waits for more
  }

  /** Whether takeReady() would give any. */
  isReady(fromLsn: number): boolean {
    return this.jobs[0]?.firstLsn === fromLsn && this.readyCount > 0;
  }

  /** Whether what is ready goes into a manifest now; if not, onReady comes again. */
  isDue(): boolean {
    return this.pace.isDue(this.readyCount);
  }

  /** A manifest was published. */
  published(): void {
    this.pace.published();
  }

  /** Uploaded segments in front of the first that is not. */
  private get readyCount(): number {
    const first = this.jobs.findIndex((job) => job.uploaded === null);
    return first < 0 ? this.jobs.length : first;
  }

  private told(): void {
    if (!this.stopped && this.readyCount > 0) this.options.onReady();
  }

  /** Uploaded segments that continue the log at `fromLsn` without a hole; they are the caller's now. */
  takeReady(fromLsn: number): readonly UploadedSegment[] {
    const ready: UploadedSegment[] = [];
    for (let next = fromLsn; ; ) {
      const job = this.jobs[0];
      if (job === undefined || job.uploaded === null || job.firstLsn !== next) return ready;
      ready.push(job.uploaded);
      next = job.lastLsn + 1;
      this.jobs.shift();
    }
  }

  stop(): void {
    this.stopped = true;
    this.generation += 1;
    this.live.clear();
    this.pace.stop();
    this.timer?.cancel();
    this.timer = null;
  }

  /** The same segment again, from the log: what a store lost after it said that it had it. */
  async sealAgain(firstLsn: number, lastLsn: number, archiverEpoch: number): Promise<SealedSegment> {
    const { parts } = this.options;
    const release = await parts.segmentSlots.take();
    try {
      const gathered = await this.gather(firstLsn, lastLsn, null, () => this.stopped);
      if (gathered.lastLsn !== lastLsn) throw logBreaks(lastLsn + 1, gathered.lastLsn + 1);
      return await parts.worker.seal({ ...gathered.take(), archiverEpoch }, parts.options.level);
    } finally {
      release();
    }
  }

  private pump(): void {
    if (this.running || this.stopped) return;
    this.running = true;
    this.run().then(
      () => {
        this.running = false;
        if (this.isWanted()) this.pump();
      },
      (cause: unknown) => {
        this.running = false;
        if (!this.stopped) this.options.onFailed(toVarveError(cause, "sealing the log"));
      },
    );
  }

  private isWanted(): boolean {
    const { durableLsn } = this.options.log.state();
    if (this.stopped || this.nextLsn > durableLsn) return false;
    if (this.backlogBytes === null || this.demandLsn >= this.nextLsn) return true;
    return this.backlogBytes + this.countedBytes >= this.options.parts.options.segmentRecordBytes;
  }

  private async run(): Promise<void> {
    const { segmentSlots } = this.options.parts;
    while (this.isWanted()) {
      const release = await segmentSlots.take();
      try {
        if (this.isWanted() && (await this.cutNext(release))) continue;
      } catch (cause) {
        release();
        throw cause;
      }
      release();
    }
    this.timer?.cancel();
    this.timer = null;
    if (this.nextLsn <= this.options.log.state().durableLsn) this.armTimer();
  }

  /** Gathers one segment; true where it became a job, which then owns the slot. */
  private async cutNext(release: () => void): Promise<boolean> {
    const { generation } = this;
    const from = this.nextLsn;
    const gathered =
      this.takeLive(from) ?? (await this.gatherNext(from, () => generation !== this.generation));
    if (generation !== this.generation || gathered.empty) return false;
    const { lastLsn } = gathered;
    const isWhole = this.isWhole(gathered) || lastLsn + 1 === this.live.firstLsn;
    if (!isWhole && this.demandLsn < from) {
      // All there is, and not enough: now it is known how much.
      this.backlogBytes = gathered.backlogBytes;
      return false;
    }
    const job: SegmentJob = { firstLsn: from, lastLsn, uploaded: null };
    this.jobs.push(job);
    this.busy = isWhole;
    this.nextLsn = lastLsn + 1;
    this.chain = gathered.chain;
    this.countedBytes -= gathered.recordBytes - gathered.backlogBytes;
    this.backlogBytes = this.nextLsn >= this.countedFromLsn ? 0 : null;
    void this.finish(job, gathered.take(), generation, release);
    return true;
  }

  /** The writers' way goes through here: what is wrong is found, and told, when the log itself is read. */
  private followLive(batch: DurableBatch): void {
    try {
      this.live.follow(batch, this.busy);
    } catch {
      this.live.clear();
      this.busy = false;
    }
  }

  /** What filled from memory: whole, or somebody can't wait for the rest of it. */
  private takeLive(from: number): GatheredLog | null {
    if (this.demandLsn < from && !this.live.isWholeAt(from)) return null;
    const gathered = this.live.take(from);
    if (gathered !== null && this.chain !== null && gathered.begunBehind !== this.chain)
      throw logBreaks(from, from);
    return gathered;
  }

  /** From the log, up to where memory goes on. */
  private async gatherNext(from: number, isUnwanted: () => boolean): Promise<GatheredLog> {
    const untilLsn = Math.min(this.options.log.state().durableLsn, this.live.firstLsn - 1);
    return await this.gather(from, untilLsn, this.chain, isUnwanted);
  }

  private isWhole(gathered: GatheredLog): boolean {
    return gathered.full || gathered.recordBytes >= this.options.parts.options.segmentRecordBytes;
  }

  private async gather(
    fromLsn: number,
    untilLsn: number,
    chain: bigint | null,
    isUnwanted: () => boolean,
  ): Promise<GatheredLog> {
    const { log, parts, volumeId, archiverEpoch } = this.options;
    const gathered = new GatheredLog(
      { volumeId, line: log.line, archiverEpoch },
      chain,
      fromLsn,
      this.countedFromLsn,
    );
    const memory = parts.segmentSlots.takeMemory();
    if (memory !== null) gathered.reuse(memory);
    for await (const batch of log.read(fromLsn)) {
      if (isUnwanted() || batch.firstLsn > untilLsn) break;
      gathered.add(batch);
      if (this.isWhole(gathered) || gathered.lastLsn >= untilLsn) break;
    }
    return gathered;
  }

  /** Compresses and uploads; whatever fails for a while is repeated. */
  private async finish(
    job: SegmentJob,
    stream: SegmentStream,
    generation: number,
    release: () => void,
  ): Promise<void> {
    const { parts, patience } = this.options;
    const isUnwanted = (): boolean => generation !== this.generation;
    let key: string | null = null;
    try {
      const { object, sha256, memory, ...sealed } = await this.sealed(job, stream, isUnwanted);
      parts.failpoint("seal");
      key = sealed.ref.key;
      parts.uploads.begin(key);
      const put = () => parts.store.put(sealed.ref.key, object, { sha256 });
      await patience.run("upload a segment", put, isUnwanted);
      parts.failpoint("upload");
      this.counters.segments += 1;
      this.counters.segmentBytes += sealed.ref.bytes;
      this.counters.recordBytes += sealed.ref.recordBytes;
      job.uploaded = { ...sealed, digest: Uint8Array.from(object.subarray(object.length - 32)) };
      // Only here: a put that failed may still be read from.
      parts.segmentSlots.giveMemory(memory);
    } catch (cause) {
      if (key !== null) parts.uploads.end(key);
      if (!isUnwanted()) this.options.onFailed(toVarveError(cause, "upload a segment"));
      return;
    } finally {
      release();
    }
    if (!isUnwanted()) this.told();
  }

  /** The thread may end under way, with the records: they are gathered again. */
  private async sealed(
    job: SegmentJob,
    stream: SegmentStream,
    isUnwanted: () => boolean,
  ): Promise<SealedSegment> {
    const { worker, options } = this.options.parts;
    let next = stream;
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await worker.seal(next, options.level);
      } catch (cause) {
        const error = toVarveError(cause, "sealing");
        if (error.kind !== "Retry" || attempt === sealAttemptsMax || isUnwanted()) throw error;
        next = (await this.gather(job.firstLsn, job.lastLsn, null, isUnwanted)).take();
      }
    }
  }

  private armTimer(): void {
    if (this.timer !== null || this.stopped) return;
    const { clock, options } = this.options.parts;
    this.timer = clock.after(options.segmentAgeMs, () => {
      this.timer = null;
      this.demand(this.options.log.state().durableLsn);
    });
  }
}

const sealAttemptsMax = 3;
