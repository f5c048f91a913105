/*
 * Where an image's bytes are, and only then what a hole means: the one function behind BLOCK_STATUS, bases and folds.
 * Every extent is local today, so a hole is zero; an extent elsewhere will be answered before the file is asked. Called by
 * raw-file.ts. Data and holes come from the file system (SEEK_DATA, SEEK_HOLE), 1-2 µs each.
 */
import type { BlockFile } from "#shared/ports/file-store.ts";
import type { AllocationRun } from "#shared/ports/replica-image.ts";

/** "local": the file holds the extent's bytes. The one state of `residency: full`. */
type Residency = "local";

function residencyOf(_offset: number): { readonly residency: Residency; readonly end: number } {
  return { residency: "local", end: Number.POSITIVE_INFINITY };
}

/** Runs from `offset` on, at most `runsMax`, together at most `length` bytes. */
export function residentRuns(
  file: BlockFile,
  offset: number,
  length: number,
  runsMax: number,
): readonly AllocationRun[] {
  const runs: AllocationRun[] = [];
  const end = offset + length;
  for (let at = offset; at < end && runs.length < runsMax; ) {
    const run = localRun(file, at, Math.min(end, residencyOf(at).end));
    runs.push(run);
    at += run.length;
  }
  return runs;
}

function localRun(file: BlockFile, offset: number, end: number): AllocationRun {
  const data = file.nextData(offset);
  if (data === -1 || data >= end) return { offset, length: end - offset, allocated: false };
  if (data > offset) return { offset, length: data - offset, allocated: false };
  // A hole that another thread makes or fills meanwhile never gives an empty run.
  const hole = Math.min(end, Math.max(offset + 1, file.nextHole(offset)));
  return { offset, length: hole - offset, allocated: true };
}
