/*
 * What is known of a point's allocation without asking the bucket: zero where the map says so or the base's root and page are in
 * memory and name nothing. Conservative: "allocated" may be zero, "not allocated" is. Called by point-source.ts.
 */
import { limits } from "#shared/domain/limits.ts";
import type { AllocationRun } from "#shared/ports/replica-image.ts";
import type { BaseReader } from "./base-reader.ts";
import type { FoldMap } from "./fold-map.ts";

class Runs {
  readonly list: { offset: number; length: number; allocated: boolean }[] = [];
  private readonly most: number;
  private ended = false;

  constructor(most: number) {
    this.most = most;
  }

  /** One run more was needed than was asked for. */
  get full(): boolean {
    return this.ended;
  }

  add(from: number, to: number, allocated: boolean): void {
    if (this.ended) return;
    const last = this.list.at(-1);
    if (last?.allocated === allocated) last.length += to - from;
    else if (this.list.length < this.most) this.list.push({ offset: from, length: to - from, allocated });
    else this.ended = true;
  }
}

export function allocationRuns(
  map: FoldMap,
  base: BaseReader | null,
  offset: number,
  length: number,
  runsMax: number,
): readonly AllocationRun[] {
  const runs = new Runs(runsMax);
  const end = offset + length;
  const inside = Math.max(offset, Math.min(end, map.sizeBytes));
  let next = offset;
  map.visit(offset, inside, (from, to, place) => {
    addBelow(runs, base, next, from);
    runs.add(from, to, place.kind !== "zero");
    next = to;
  });
  addBelow(runs, base, next, inside);
  if (inside < end) runs.add(inside, end, false);
  return runs.list;
}

function addBelow(runs: Runs, base: BaseReader | null, from: number, to: number): void {
  for (let at = from; at < to && !runs.full; ) {
    const extent = Math.floor(at / limits.extentBytes);
    const zeroes = base === null ? Number.POSITIVE_INFINITY : base.knownZeroes(extent);
    const next = Math.min(to, (extent + Math.max(1, zeroes)) * limits.extentBytes);
    runs.add(at, next, zeroes === 0);
    at = next;
  }
}
