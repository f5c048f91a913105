// The log of a volume as storage nodes' tests play it: it grows, fails and forgets when the test says so.
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import type { Batch } from "#shared/domain/batch.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { LoggedBatch } from "#shared/ports/history.ts";
import type { FollowedBatch, FollowFrom, LogEnd, LogFollower } from "#shared/ports/log-follower.ts";
import { SteppedRandom } from "../file-store/stepped-clock.ts";
import { BatchMaker, line } from "../replica/batch-maker.ts";

/** A log that grows when the test says so. */
export class PlayedLog implements LogFollower {
  readonly batches: Batch[] = [];
  readonly maker: BatchMaker;
  readonly begun: FollowFrom[] = [];
  failure: VarveError | null = null;
  oldestLsn: number;

  constructor(sizeBytes: number, lastLsn = 0) {
    this.oldestLsn = lastLsn + 1;
    this.maker = new BatchMaker(new MemoryFileStore(), new SteppedRandom(3), sizeBytes, lastLsn);
  }

  write(offset: number, value: number, length = 4096): void {
    if (this.batches.length === 0) this.batches.push(this.maker.epoch().batch);
    this.batches.push(this.maker.write(offset, Buffer.alloc(length, value)).batch);
  }

  /** Back to what the disk was at that LSN. */
  rebase(toLsn: number): void {
    this.batches.push(this.maker.rebase(toLsn, this.maker.sizeBytes).batch);
  }

  async *follow(from: FollowFrom, signal: AbortSignal): AsyncGenerator<FollowedBatch, void, undefined> {
    this.begun.push(from);
    let next = this.batches.findIndex(({ firstLsn }) => firstLsn > from.appliedLsn);
    while (!signal.aborted) {
      if (this.failure !== null) throw this.failure;
      if (from.appliedLsn + 1 < this.oldestLsn) throw new VarveError("LogReleased", "Invalid", "it is gone");
      const batch =
        next < 0 ? this.batches.find(({ firstLsn }) => firstLsn > from.appliedLsn) : this.batches[next];
      if (batch === undefined) await new Promise((resolve) => setTimeout(resolve, 2));
      else {
        next = this.batches.indexOf(batch) + 1;
        yield { batch: { ...batch, record: new Uint8Array() }, sequence: 100 + next };
      }
    }
  }

  async end(): Promise<LogEnd | null> {
    const last = this.batches.at(-1);
    if (last === undefined) return null;
    const lastLsn = last.firstLsn + last.entries.length - 1;
    const { oldestLsn } = this;
    const place = { line, epoch: 1, oldestLsn, lastLsn, checksum: last.checksum, sequence: 0 };
    return { ...place, diskBytes: 0, limitBytes: 2 ** 30 };
  }

  async *read(fromLsn: number, untilLsn: number): AsyncGenerator<LoggedBatch, void, undefined> {
    for (const batch of this.batches) {
      if (batch.firstLsn >= fromLsn && batch.firstLsn <= untilLsn) {
        yield { ...batch, record: new Uint8Array() };
      }
    }
  }
}
