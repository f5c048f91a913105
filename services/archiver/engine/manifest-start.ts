/*
 * What an archiver finds when it opens: whose volume this is, how far it is archived, whether this machine's log continues that. Judged
 * before anything is written. Called by volume-archiver.ts; the order of questions is in docs/specs/archive.md#opening.
 */
import { lineMarkerKey } from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { ArchiveSubject } from "#shared/ports/archive.ts";
import type { ObjectStore, StoreCapabilities } from "#shared/ports/object-store.ts";
import { findJoint, type LogJoint } from "./archive-gap.ts";
import type { BucketPatience } from "./bucket-patience.ts";
import { logBreaks } from "./gathered-log.ts";
import type { HeldObject } from "./held-ledger.ts";
import { type FoundManifest, findManifest } from "./manifest-finder.ts";
import { otherArchiver, rescuedElsewhere } from "./manifest-publisher.ts";
import { findLostLine, markerAsHeld } from "./taken-line.ts";

export interface ArchiveStart {
  readonly found: FoundManifest | null;
  readonly lineNumber: number;
  /** The bucket has lost all manifests of our line: `found` is its first one as it was, and has to be published again. */
  readonly isLineLost: boolean;
  /** Our line's marker, where it is not the volume's first line. */
  readonly marker: HeldObject | null;
  /** The log begins after what is archived: it goes on from here, with a gap before. */
  readonly gap: LogJoint | null;
}

/** findStart(), and a line that was lost is marked again; both wait for a bucket that is away. */
export async function openStart(
  store: ObjectStore,
  subject: ArchiveSubject,
  capabilities: StoreCapabilities,
  patience: BucketPatience,
): Promise<ArchiveStart> {
  const isUnwanted = (): boolean => subject.abandoned();
  const start = await patience.run(
    "read the manifest",
    () => findStart(store, subject, capabilities),
    isUnwanted,
  );
  if (start.isLineLost && !isUnwanted()) {
    await patience.run("mark the line", async () => start.marker?.restore(), isUnwanted);
  }
  return start;
}

/** Rejects Fenced or Corrupt where this log must not be archived under the volume's id. */
export async function findStart(
  store: ObjectStore,
  subject: ArchiveSubject,
  { conditionalPut }: StoreCapabilities,
): Promise<ArchiveStart> {
  const { record, log, archiverEpoch } = subject;
  const { found, isLineLost } = await findOwn(store, subject);
  const manifest = found?.manifest ?? null;
  const lineNumber = manifest?.lineNumber ?? 1;
  const nextMarker = await store.head(lineMarkerKey(record.id, lineNumber + 1));
  if (nextMarker !== null) throw rescuedElsewhere(record.name);
  const marker = lineNumber > 1 ? markerAsHeld(store, subject, lineNumber, conditionalPut) : null;

  const archivedLsn = manifest?.archivedLsn ?? 0;
  const { oldestLsn, durableLsn } = log.state();
  if (archivedLsn > durableLsn) throw logEndsEarly(record.name, durableLsn, archivedLsn);
  if (oldestLsn > archivedLsn + 1) {
    // Log goes only when a bucket holds it, so the missing entries are in another one, unless somebody said that they may go.
    const mayMiss = archiverEpoch === 1 || subject.facts().bucketAway === "drop history";
    if (!mayMiss) throw otherBucket(record.name, store.place, archivedLsn, oldestLsn);
    return { found, lineNumber, isLineLost, marker, gap: await findJoint(subject, oldestLsn - 1) };
  }
  if (archivedLsn < durableLsn) {
    const next = await findJointAfter(subject, archivedLsn);
    if (next !== BigInt(`0x${manifest?.archivedChecksum ?? "0"}`))
      throw logBreaks(archivedLsn + 1, archivedLsn + 1);
  }
  return { found, lineNumber, isLineLost, marker, gap: null };
}

/** The newest manifest of our line. */
async function findOwn(
  store: ObjectStore,
  subject: ArchiveSubject,
): Promise<Pick<ArchiveStart, "found" | "isLineLost">> {
  const { record, log, archiverEpoch } = subject;
  const seen = await findManifest(store, record.id);
  if (seen === null) return { found: null, isLineLost: false };
  if (seen.manifest.line === log.line) {
    if (seen.manifest.archiverEpoch >= archiverEpoch) throw otherArchiver(record.name, seen.key);
    return { found: seen, isLineLost: false };
  }
  const found = await findLostLine(store, subject, seen);
  if (found === null) throw rescuedElsewhere(record.name);
  return { found, isLineLost: true };
}

/** The previous checksum of the record that begins right after `lsn`. */
async function findJointAfter({ log }: ArchiveSubject, lsn: number): Promise<bigint> {
  for await (const batch of log.read(lsn + 1)) {
    if (batch.firstLsn !== lsn + 1) throw logBreaks(lsn + 1, batch.firstLsn);
    return batch.previousChecksum;
  }
  throw logBreaks(lsn + 1, lsn + 1);
}

function otherBucket(name: string, place: string, archivedLsn: number, oldestLsn: number): VarveError {
  return new VarveError(
    "OtherBucketError",
    "Corrupt",
    `volume ${name}: the bucket ${place} has entries up to ${archivedLsn}, the log here begins at ${oldestLsn}: this is not the bucket that holds what lies between`,
    {
      hint:
        "Is it mounted, is the URL right, is it an old copy? Nothing is archived and the log is kept until the right one is back. " +
        "Where varve up ran with --bucket none meanwhile, no bucket has it. To go on in this one with a gap in the past: " +
        `varve volume set ${name} --bucket-away drop-history; set it back to stop once volume show says that the archive is running.`,
      fields: { name, archivedLsn, oldestLsn },
    },
  );
}

function logEndsEarly(name: string, lastLsn: number, archivedLsn: number): VarveError {
  return new VarveError(
    "LogEndsBeforeArchive",
    "Corrupt",
    `volume ${name}: the log on this machine ends at entry ${lastLsn}, the bucket has entries up to ${archivedLsn}`,
    {
      hint: "The data directory is older than the bucket. To go on from what the bucket has: varve rescue, into a new directory.",
      fields: { name, lastLsn, archivedLsn },
    },
  );
}
