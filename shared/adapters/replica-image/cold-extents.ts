/*
 * Looks through an image's file for extents that hold data and may be given back, the coldest first: what tiering evicts.
 * Holes are skipped by the file system's own answer, and others get their turn in between. Called by image-extents.ts.
 */
import { limits } from "#shared/domain/limits.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { BlockFile } from "#shared/ports/file-store.ts";

/** Extents looked at before others get a turn: 1-2 µs each. */
const looksPerRound = 1024;

export interface ColdSearch {
  readonly file: BlockFile;
  readonly clock: Clock | null;
  /** The hour in which an extent was last used. */
  readonly hourOf: (extent: number) => number;
  /** Whether it may be given back now. */
  readonly mayLeave: (extent: number) => boolean;
  /** Throws where the image is being closed. */
  readonly requireOpen: () => void;
}

export async function findColdExtents(
  { file, clock, hourOf, mayLeave, requireOpen }: ColdSearch,
  beforeHour: number,
  most: number,
): Promise<readonly number[]> {
  const found: number[] = [];
  let looked = 0;
  for (let at = file.nextData(0); at !== -1; ) {
    const extent = Math.floor(at / limits.extentBytes);
    if (hourOf(extent) < beforeHour && mayLeave(extent)) found.push(extent);
    looked += 1;
    if (looked % looksPerRound === 0 && clock !== null) {
      await new Promise<void>((resolve) => {
        clock.soon(resolve);
      });
    }
    requireOpen();
    at = file.nextData((extent + 1) * limits.extentBytes);
  }
  return found.sort((a, b) => hourOf(a) - hourOf(b)).slice(0, most);
}
