/*
 * Holes and data of bytes that are in the file, as the file system tells them (SEEK_DATA, SEEK_HOLE, 1-2 µs each). A hole means
 * zero only where the extent is local: raw-file.ts calls this for wholly local images, partial-read.ts for local ranges,
 * after the table of extents was asked. docs/specs/residency.md, invariant 1.
 */
import type { BlockFile } from "#shared/ports/file-store.ts";
import type { AllocationRun } from "#shared/ports/replica-image.ts";

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
    const run = localRun(file, at, end);
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
