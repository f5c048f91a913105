// The judge of a volume's past while nobody writes it: everything that the log has comes into the bucket, and its fold, made of the bucket
// alone by a reader that shares no code with Varve, is byte for byte what both replicas are at that LSN. Called by nemesis-run.ts.
import { readFileSync } from "node:fs";
import { sleep } from "../tools/cluster-process.ts";
import { type NemesisLab, nodeNames } from "./nemesis-lab.ts";

const archivedMs = 60_000;
const equalMs = 60_000;

export interface ArchiveVerdict {
  readonly volume: string;
  readonly lastLsn: number;
  /** The log begins here: what is before it is in the bucket only. */
  readonly oldestLsn: number;
  readonly lastBaseLsn: number;
  readonly failures: readonly string[];
}

export async function judgeArchive(lab: NemesisLab, volume: string): Promise<ArchiveVerdict> {
  // A file is the disk where all of it is there: what is cold is fetched first.
  await lab.past.api.job(`volumes/${volume}/fill`);
  const end = await lab.logEnd(volume);
  if (end === null) throw new Error(`${volume} has no log`);
  const { lastLsn, oldestLsn, line } = end;
  const verdict = (failures: readonly string[], lastBaseLsn = 0): ArchiveVerdict => ({
    volume,
    lastLsn,
    oldestLsn,
    lastBaseLsn,
    failures: failures.map((one) => `${volume} at LSN ${lastLsn}: ${one}`),
  });
  const heldByMs = performance.now() + archivedMs;
  let record = await lab.past.record(volume);
  while (record === null || record.line !== line || record.heldLsn < lastLsn) {
    if (performance.now() > heldByMs) {
      const stands = record === null ? "nothing" : `up to ${record.heldLsn}, ${record.state} ${record.error}`;
      return verdict([`the bucket does not hold it ${archivedMs} ms after the last write: ${stands}`]);
    }
    await sleep(200);
    record = await lab.past.record(volume);
  }
  const fold = await lab.past.fold(volume, lastLsn);
  const failures: string[] = [];
  for (const node of nodeNames) {
    const equalByMs = performance.now() + equalMs;
    let at = firstDifference(fold, readFileSync(lab.fileOf(node, volume)));
    while (at !== null && performance.now() < equalByMs) {
      await sleep(200);
      at = firstDifference(fold, readFileSync(lab.fileOf(node, volume)));
    }
    if (at !== null) failures.push(`${node} differs from the fold of the archived log from byte ${at} on`);
  }
  const after = await lab.logEnd(volume);
  if (after?.lastLsn !== lastLsn) failures.push(`somebody wrote: the log is at ${after?.lastLsn} now`);
  return verdict(failures, record.lastBaseLsn);
}

function firstDifference(one: Buffer, other: Buffer): number | null {
  if (one.length !== other.length) return Math.min(one.length, other.length);
  if (one.equals(other)) return null;
  return one.findIndex((byte, index) => byte !== other[index]);
}
