/*
 * When log may go: up to the least of the image's checkpoint, what the bucket holds, and the pins of those who still read it.
 * Owned by a volume session, told by its applier (checkpoints), the archiver (held) and readers of the hot log (pins); next:
 * LogWriter.release, one at a time. Without a bucket only checkpoint and pins count.
 */
import { VarveError } from "#shared/domain/errors.ts";
import type { LogWriter } from "#shared/ports/write-log.ts";

export class LogRelease {
  private log: LogWriter | null = null;
  private checkpointLsn = 0;
  private heldLsn: number;
  /** First LSN that each reader still needs. */
  private readonly pins = new Set<{ readonly lsn: number }>();
  private releasedLsn = 0;
  private releasing = false;
  /** Last failure. A segment that can't be removed costs room, not data; the log's own limit watches over that. */
  error: VarveError | null = null;

  constructor(archived: boolean) {
    this.heldLsn = archived ? 0 : Number.POSITIVE_INFINITY;
  }

  /** The checkpoint is from before the log was opened: nothing is released for it. */
  start(log: LogWriter, checkpointLsn: number): void {
    this.log = log;
    this.checkpointLsn = checkpointLsn;
  }

  /** Nothing is released any more: after a halt the log stays as it is. */
  stop(): void {
    this.log = null;
  }

  checkpointed(lsn: number): void {
    this.checkpointLsn = Math.max(this.checkpointLsn, lsn);
    this.advance(true);
  }

  /** Where nothing archived the volume when it was opened, the first word of an archiver (0: it only begins) keeps the log from then on. */
  held(lsn: number): void {
    if (this.heldLsn === Number.POSITIVE_INFINITY) this.heldLsn = this.releasedLsn;
    if (lsn <= this.heldLsn) return;
    this.heldLsn = lsn;
    this.advance(false);
  }

  pin(lsn: number): () => void {
    const pin = { lsn };
    this.pins.add(pin);
    return () => {
      if (this.pins.delete(pin)) this.advance(false);
    };
  }

  /** `again`: also where the limit did not move, because the log may now recycle what it could not before. */
  private advance(again: boolean): void {
    if (this.log === null || this.releasing) return;
    let lsn = Math.min(this.checkpointLsn, this.heldLsn);
    for (const pin of this.pins) lsn = Math.min(lsn, pin.lsn - 1);
    if (lsn <= 0 || (!again && lsn <= this.releasedLsn)) return;
    this.releasing = true;
    this.releasedLsn = Math.max(this.releasedLsn, lsn);
    this.log
      .release(lsn + 1)
      .catch((cause: unknown) => {
        this.error = cause instanceof VarveError ? cause : null;
      })
      .finally(() => {
        this.releasing = false;
        this.advance(false);
      });
  }
}
