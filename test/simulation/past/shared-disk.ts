/*
 * A bucket in a directory of the machine's own disk, which somebody else fills now and then: log, images and bucket then find no room
 * together, at whatever file operation comes next. Some worlds have one, by their seed. Made by past-world.ts; squeezed by
 * past-operations.ts while clients work, and roomy again before anything is judged at rest or opened.
 */
import type { BucketSpace } from "#shared/adapters/object-store/simulated-bucket.ts";
import type { PastWorld } from "./past-world.ts";

const blockBytes = 4096;
/** Whoever was refused looks again within a second, and a log that is full waits for a checkpoint. */
const troubleMs = 10_000;

export class SharedDisk implements BucketSpace {
  /** Somebody filled it in the life that runs now: halts and refusals have a cause. */
  wasFull = false;
  private readonly world: PastWorld;
  private readonly totalBytes: number;
  private bucketBytes = 0;
  private foreignBytes = 0;
  private troubledUntilMs = -1;

  constructor(world: PastWorld, totalBytes: number) {
    this.world = world;
    this.totalBytes = totalBytes;
  }

  take(bytes: number): boolean {
    const { disk } = this.world;
    if (disk.usedBytes + bytes > disk.quotaBytes) {
      this.world.count("objects that found no room");
      return false;
    }
    this.bucketBytes += bytes;
    this.update();
    return true;
  }

  give(bytes: number): void {
    this.bucketBytes -= bytes;
    this.update();
  }

  /** All but a few blocks is taken. */
  squeeze(blocksLeft: number): void {
    const { disk, scheduler } = this.world;
    this.wasFull = true;
    this.troubledUntilMs = Number.POSITIVE_INFINITY;
    const free = this.totalBytes - this.bucketBytes - disk.usedBytes;
    this.foreignBytes = Math.max(0, free - blocksLeft * blockBytes);
    this.update();
    this.world.note(`the disk is full at ${Math.round(scheduler.nowMs)} ms`);
    this.world.count("disk filled");
  }

  /** What somebody else had there is gone. Also after the machine got another disk. */
  makeRoom(): void {
    if (this.foreignBytes > 0) this.troubledUntilMs = this.world.scheduler.nowMs + troubleMs;
    this.foreignBytes = 0;
    this.update();
  }

  get mayBeFull(): boolean {
    return this.world.scheduler.nowMs < this.troubledUntilMs;
  }

  private update(): void {
    this.world.disk.quotaBytes = this.totalBytes - this.bucketBytes - this.foreignBytes;
  }
}
