/*
 * The extents that a stretch of log touches: 128 bytes for each 4 GiB that has any, and a list of long runs (a trim or a resize of
 * a whole disk). Filled by base-schedule.ts from the summaries of segments, read by base-builder.ts.
 */
import type { ExtentRun } from "#shared/domain/archive.ts";
import { limits } from "#shared/domain/limits.ts";

const extentsPerBlock = 1024;
/** Runs from this length on stay runs: 16 GiB, so at most 65,536 of them cover the largest volume. */
const longRun = 4096;

export class DirtyExtents {
  private readonly blocks = new Map<number, Uint32Array>();
  private long: ExtentRun[] = [];
  private count = 0;

  /** Bytes of extents touched by anything but whole-disk trims and resizes, which read nothing. */
  get bytes(): number {
    return this.count * limits.extentBytes;
  }

  add(runs: readonly ExtentRun[]): void {
    let grew = false;
    for (const run of runs) {
      if (run.count >= longRun) {
        this.long.push(run);
        grew = true;
      } else this.addShort(run);
    }
    if (grew) this.long = joined(this.long);
  }

  addAll(other: DirtyExtents): void {
    this.add([...other.runs(Number.POSITIVE_INFINITY)]);
  }

  /** Ascending, joined, below `extents`. */
  runs(extents: number): readonly ExtentRun[] {
    const runs: ExtentRun[] = [...this.long];
    for (const [block, bits] of this.blocks) {
      for (let index = 0; index < extentsPerBlock; index += 1) {
        if (((bits[index >>> 5] as number) & (1 << (index & 31))) === 0) continue;
        const first = block * extentsPerBlock + index;
        let count = 1;
        while (
          index + 1 < extentsPerBlock &&
          ((bits[(index + 1) >>> 5] as number) & (1 << ((index + 1) & 31))) !== 0
        ) {
          index += 1;
          count += 1;
        }
        runs.push({ first, count });
      }
    }
    return joined(runs)
      .filter(({ first }) => first < extents)
      .map(({ first, count }) => ({ first, count: Math.min(count, extents - first) }));
  }

  private addShort({ first, count }: ExtentRun): void {
    for (let extent = first; extent < first + count; extent += 1) {
      const block = Math.floor(extent / extentsPerBlock);
      let bits = this.blocks.get(block);
      if (bits === undefined) {
        bits = new Uint32Array(extentsPerBlock / 32);
        this.blocks.set(block, bits);
      }
      const index = extent % extentsPerBlock;
      const word = bits[index >>> 5] as number;
      const bit = 1 << (index & 31);
      if ((word & bit) !== 0) continue;
      bits[index >>> 5] = word | bit;
      this.count += 1;
    }
  }
}

function joined(runs: ExtentRun[]): ExtentRun[] {
  runs.sort((a, b) => a.first - b.first);
  const result: { first: number; count: number }[] = [];
  for (const { first, count } of runs) {
    const last = result.at(-1);
    if (last !== undefined && first <= last.first + last.count) {
      last.count = Math.max(last.count, first + count - last.first);
    } else result.push({ first, count });
  }
  return result;
}
