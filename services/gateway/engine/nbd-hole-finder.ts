/*
 * Where a large read meets a hole that is worth a chunk of its own. Asking the volume is not free: the file system walks every
 * extent up to the next hole, however far that is (SEEK_HOLE takes no end; 2.8 ms in an image of 4,000 extents). So the answer
 * for a whole read is used for all its pieces, and where no hole is met the question is asked ever more rarely.
 * Called by nbd-read-stream.ts; asks BlockExport.blockStatus.
 *
 * Data may be answered from memory: a hole that came since reads as zero all the same. A hole never is.
 */
import { limits } from "#shared/domain/limits.ts";
import type { BlockExport } from "#shared/ports/block-export.ts";

const runsPerProbe = 16;
/** Large reads between two questions, at most, while no hole is met: each miss doubles the pause. */
const pauseMax = 255;

export class HoleFinder {
  /** Behind holeAt() = 0: there is no hole worth a chunk before this. */
  dataEnd = 0;
  private readonly volume: BlockExport;
  private pause = 0;
  private skip = 0;
  /** Where the read under way ends, and whether its holes are asked for. */
  private readEnd = 0;
  private asking = false;
  private met = false;

  constructor(volume: BlockExport) {
    this.volume = volume;
  }

  /** A large read begins: whether its holes are asked for is decided once. */
  begin(offset: number, length: number): void {
    this.readEnd = offset + length;
    this.dataEnd = offset;
    this.met = false;
    this.asking = this.skip === 0;
    if (!this.asking) this.skip -= 1;
  }

  /** Length of the hole that begins at `offset`, within the read; 0 where data does, up to this.dataEnd. */
  holeAt(offset: number): number {
    if (offset < this.dataEnd) return 0;
    if (!this.asking) {
      this.dataEnd = this.readEnd;
      return 0;
    }
    let at = offset;
    for (const run of this.volume.blockStatus(offset, this.readEnd - offset, runsPerProbe)) {
      const length = Math.min(run.offset + run.length, this.readEnd) - at;
      if (!run.allocated && length >= limits.nbdHoleBytesMin) {
        this.met = true;
        this.pause = 0;
        this.skip = 0;
        if (at === offset) return length;
        this.dataEnd = at;
        return 0;
      }
      at += length;
    }
    this.dataEnd = at;
    if (at === this.readEnd && !this.met) {
      this.pause = Math.min(2 * this.pause + 1, pauseMax);
      this.skip = this.pause;
    }
    return 0;
  }
}
