/*
 * Watches one volume's hot log while the bucket is away: tells the operator at 50, 75 and 90 % of its limit, and at 90 % has history
 * dropped where the volume's policy says so. With the policy "stop" the log's own limit refuses writes. Asked with each durable
 * batch, looks once per hundredth of the limit.
 */
import type { ArchiveSubject, DurableBatch } from "#shared/ports/archive.ts";

export interface LogWatchOptions {
  readonly subject: Pick<ArchiveSubject, "log" | "facts" | "onNote">;
  readonly isAway: () => boolean;
  readonly onDrop: () => void;
}

const levels = [0.5, 0.75, 0.9];
const dropAt = 0.9;

export class LogWatch {
  private readonly options: LogWatchOptions;
  private readonly lookEveryBytes: number;
  private bytesToLook = 0;
  /** Levels told of since the bucket went away. */
  private told = 0;

  constructor(options: LogWatchOptions) {
    this.options = options;
    this.lookEveryBytes = options.subject.log.room().limitBytes / 100;
  }

  follow(batch: DurableBatch): void {
    this.bytesToLook -= batch.recordBytes;
    if (this.bytesToLook > 0) return;
    this.bytesToLook = this.lookEveryBytes;
    this.look();
  }

  private look(): void {
    const { subject, isAway, onDrop } = this.options;
    if (!isAway()) {
      this.told = 0;
      return;
    }
    const { diskBytes, limitBytes } = subject.log.room();
    const share = diskBytes / limitBytes;
    const drops = subject.facts().bucketAway === "drop history";
    const reached = levels.filter((level) => share >= level).length;
    if (reached > this.told) {
      this.told = reached;
      const then = drops ? "history is given up" : "writes are refused";
      subject.onNote(
        `the log has ${Math.round(share * 100)} % of its room and can't go to the bucket; when it is full, ${then}`,
      );
    }
    if (drops && share >= dropAt) onDrop();
  }
}
