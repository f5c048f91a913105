/*
 * The archive beside an open session: opened with a time limit, so that a bucket which is away keeps no disk from being
 * served; opened again after failures; closed with a limit. volume-past.ts owns one per attached session.
 *
 *   opening ─► open ─► closed          opening ─failure─► waiting ─30 s, 5 s for room─► opening        Fenced at any time ─► onFenced
 */
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { VolumeArchive } from "#shared/ports/archive.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";

export interface ArchiveLinkOptions {
  readonly volume: string;
  readonly clock: Clock;
  /** Raises the archiver's epoch and opens; asks `abandoned` whenever it waited. */
  readonly open: (abandoned: () => boolean) => Promise<VolumeArchive>;
  readonly onNote: (text: string) => void;
  /** The volume was rescued elsewhere: found after start() had resolved. */
  readonly onFenced: (error: VarveError) => void;
}

/** Where the note of the next tenure found no room, or the bucket has none. */
const roomRetryMs = 5_000;

export class ArchiveLink {
  private readonly options: ArchiveLinkOptions;
  private archive: VolumeArchive | null = null;
  private attempt: Promise<void> | null = null;
  private retry: Timer | null = null;
  private failure: VarveError | null = null;
  private started = false;
  private closing: Promise<void> | null = null;

  constructor(options: ArchiveLinkOptions) {
    this.options = options;
  }

  /** Resolves when the archive is open, has failed, or did not answer in time. Rejects Fenced only. */
  async start(): Promise<void> {
    const { clock } = this.options;
    this.attempt = this.tryOpen();
    const late = new Promise<void>((resolve) => {
      const timer = clock.after(limits.archiveOpenMs, resolve);
      this.attempt?.finally(() => timer.cancel()).catch(() => undefined);
    });
    await Promise.race([this.attempt, late]);
    this.started = true;
    if (this.failure?.kind === "Fenced") throw this.failure;
    if (this.archive === null && this.failure === null) {
      this.options.onNote(
        `warning: volume ${this.options.volume}: the bucket does not answer; its log is kept until it does`,
      );
    }
  }

  /** Null while the bucket has not answered. */
  get current(): VolumeArchive | null {
    return this.archive;
  }

  /** Why there is none. */
  get error(): VarveError | null {
    return this.archive === null ? this.failure : this.archive.status().error;
  }

  require(): VolumeArchive {
    if (this.archive !== null && this.closing === null) return this.archive;
    // Not the bucket: the data directory has no room for the note of the next tenure.
    if (this.failure?.kind === "Full") throw this.failure;
    const why = this.failure === null ? "it does not answer" : this.failure.message;
    throw new VarveError(
      "BucketAwayError",
      "Retry",
      `the bucket of volume ${this.options.volume} is away: ${why}`,
      {
        hint: "Try again when the bucket answers. The volume is served meanwhile, and its log is kept.",
        fields: { name: this.options.volume },
      },
    );
  }

  /** Seals and uploads what is left, within the archive's own limit. An open that is under way is abandoned. Idempotent. */
  close(): Promise<void> {
    this.closing ??= this.shutDown();
    return this.closing;
  }

  private async tryOpen(): Promise<void> {
    try {
      const archive = await this.options.open(() => this.closing !== null);
      if (this.closing !== null) await archive.close();
      else this.archive = archive;
      this.failure = null;
    } catch (cause) {
      this.failed(toVarveError(cause, "open the archive"));
    }
  }

  private failed(error: VarveError): void {
    const { options } = this;
    const told = this.failure?.message === error.message;
    this.failure = error;
    if (this.closing !== null) return;
    if (error.kind === "Fenced") {
      if (this.started) options.onFenced(error);
      return;
    }
    if (!told)
      options.onNote(
        `warning: volume ${options.volume} is not archived: ${error.message}\nhint: ${error.hint}`,
      );
    // Reads of what is in the bucket only wait for it; they have longer than that.
    const waitMs = error.kind === "Full" ? roomRetryMs : limits.archiveRetryMs;
    this.retry = options.clock.after(waitMs, () => {
      this.attempt = this.tryOpen();
    });
  }

  private async shutDown(): Promise<void> {
    this.retry?.cancel();
    await this.archive?.close();
  }
}
