/*
 * Where a large read meets a hole that is worth a chunk of its own. Asking the volume is not free: the file system walks every
 * extent up to the next hole, however far that is (SEEK_HOLE takes no end). So what was found to be data is remembered, and
 * where holes are rare the question is asked rarely. Called by nbd-read-stream.ts; asks BlockExport.blockStatus.
 *
 * Data may be answered from memory: a hole that came since reads as zero all the same. A hole never is.
 */
import { limits } from "#shared/domain/limits.ts";
import type { BlockExport } from "#shared/ports/block-export.ts";

const runsPerProbe = 16;
/** How far a probe looks: sequential reads then ask once in so many bytes. */
const windowBytes = 64 * 1024 * 1024;
/** Reads that are answered from memory before it is asked again. */
const answersMax = 1024;
const pauseMax = 63;

export class HoleFinder {
  /** Behind holeAt() = 0: there is no hole worth a chunk before this. */
  dataEnd = 0;
  private readonly volume: BlockExport;
  /** [dataStart, knownEnd) was data when it was asked for; at knownEnd a hole began, or the window ended. */
  private dataStart = 0;
  private knownEnd = 0;
  private answers = 0;
  private pause = 0;
  private skip = 0;

  constructor(volume: BlockExport) {
    this.volume = volume;
  }

  /** Length of the hole that begins at `offset`, at most `length`; 0 where data does, up to this.dataEnd. */
  holeAt(offset: number, length: number): number {
    const end = offset + length;
    if (offset >= this.dataStart && offset < this.knownEnd && this.answers > 0) {
      this.answers -= 1;
      this.dataEnd = this.knownEnd;
      return 0;
    }
    if (this.skip > 0 && offset !== this.knownEnd) {
      this.skip -= 1;
      this.dataEnd = end;
      return 0;
    }
    return this.probe(offset, end);
  }

  private probe(offset: number, end: number): number {
    const window = Math.max(end - offset, Math.min(windowBytes, this.volume.sizeBytes - offset));
    let at = offset;
    for (const run of this.volume.blockStatus(offset, window, runsPerProbe)) {
      const runEnd = run.offset + run.length;
      const usable = (at === offset ? Math.min(runEnd, end) : runEnd) - at;
      if (!run.allocated && usable >= limits.nbdHoleBytesMin) {
        if (at === offset) return this.foundHole(usable);
        break;
      }
      at = runEnd;
    }
    this.dataStart = offset;
    this.knownEnd = at;
    this.answers = answersMax;
    this.dataEnd = at;
    if (at >= end) {
      this.pause = Math.min(2 * this.pause + 1, pauseMax);
      this.skip = this.pause;
    } else {
      this.pause = 0;
    }
    return 0;
  }

  private foundHole(bytes: number): number {
    this.pause = 0;
    this.skip = 0;
    return bytes;
  }
}
