/*
 * `varve image check`: do image, checkpoint and log still belong together? Reads the checkpoint, the file's facts and holes
 * and the whole log, changes nothing, and says what it found with the way out. Called by services/storage/layer.ts for a
 * volume whose session is closed.
 */
import { checkpointPathOf } from "#shared/domain/data-layout.ts";
import { type Checkpoint, isAdoptBegun, isBadCheckpoint } from "#shared/formats/checkpoint.ts";
import type { RecordedExtents } from "#shared/formats/extent-table.ts";
import type { FileFacts, FileStore } from "#shared/ports/file-store.ts";
import type { ImageReport } from "#shared/ports/volume-administration.ts";
import { type ImageLook, lookAtImage, type RepairSetup, rebuildPathOf } from "./image-files.ts";

type Fields = Record<string, string | number | boolean>;

export async function checkImage(setup: RepairSetup): Promise<ImageReport> {
  const { store, volume } = setup;
  const look = await lookAtImage(setup);
  const fields: Fields = { image: look.path };
  if (look.facts !== null) await countFile(store, look.path, look.facts, fields);
  const checkpoint = isReadable(look.checkpoint) ? look.checkpoint : null;
  const log = await lookAtLog(setup, checkpoint);
  fields["logOldestLsn"] = log.oldestLsn;
  fields["logLastLsn"] = log.lastLsn;
  fields["logBytes"] = log.diskBytes;
  fields["discardPossible"] = log.reachesBack;
  const findings = [
    ...fileFindings(setup, look, log.reachesBack, fields),
    ...(checkpoint === null ? [] : log.findings(checkpoint)),
  ];
  if (log.refusal !== null) findings.push(log.refusal);
  if ((await store.facts(rebuildPathOf(setup))) !== null) {
    findings.push(
      `${rebuildPathOf(setup)} was left by a discard that did not end; the next adopt or discard removes it`,
    );
  }
  return { name: volume.name, clean: findings.length === 0, findings, fields };
}

/** What file and checkpoint say of each other; without findings the checkpoint is this image's. */
export function changedFacts(checkpoint: Checkpoint, facts: FileFacts): readonly string[] {
  const { detached } = checkpoint;
  if (detached === null) return [];
  return (["sizeBytes", "inode", "mtimeNs", "ctimeNs"] as const)
    .filter((fact) => detached[fact] !== facts[fact])
    .map((fact) => factNames[fact]);
}

const factNames = {
  sizeBytes: "size",
  inode: "inode",
  mtimeNs: "time of last write",
  ctimeNs: "time of last change",
} as const;

function isReadable(checkpoint: ImageLook["checkpoint"]): checkpoint is Checkpoint {
  return checkpoint !== null && !isBadCheckpoint(checkpoint);
}

function fileFindings(setup: RepairSetup, look: ImageLook, canDiscard: boolean, fields: Fields): string[] {
  const { name, id } = setup.volume;
  const { facts, checkpoint } = look;
  const path = checkpointPathOf(setup.paths.image);
  const rebuild = canDiscard
    ? `\`varve image discard ${name}\` builds it again from the log`
    : "the log no longer reaches back to its first entry, so put a copy of it back";
  if (checkpoint === null) return [`${path} does not exist: ${rebuild}`];
  if (isBadCheckpoint(checkpoint)) return [`${path} is damaged (${checkpoint.detail}): ${rebuild}`];
  fields["appliedLsn"] = checkpoint.appliedLsn;
  fields["detached"] = checkpoint.detached !== null;
  if (checkpoint.residency !== "full") countExtents(checkpoint.residency, fields);
  if (checkpoint.volumeId !== id) return [`${path} belongs to volume id ${checkpoint.volumeId}, not ${id}`];
  if (facts === null) return [`${setup.paths.image} does not exist: ${rebuild}`];
  if (isAdoptBegun(checkpoint)) {
    return [`an adopt was begun and did not end: \`varve image adopt ${name}\` begins again and ends it`];
  }
  if (checkpoint.detached === null) {
    const next = checkpoint.appliedLsn + 1;
    return [
      `Varve did not close this image in good order; the next start applies the log from LSN ${next} on`,
    ];
  }
  const changed = changedFacts(checkpoint, facts);
  if (changed.length === 0) return [];
  const discard = canDiscard
    ? `\`varve image discard ${name}\` throws it away`
    : "a discard is not possible any more, because the log no longer reaches back to its first entry";
  return [
    `the image was changed while Varve did not hold it (${changed.join(", ")}): ` +
      `\`varve image adopt ${name}\` keeps the change, ${discard}`,
  ];
}

function countExtents({ runs, parts }: RecordedExtents, fields: Fields): void {
  let local = 0;
  let remote = 0;
  for (const run of runs) {
    if (run.place === 0) local += run.extents;
    else remote += run.extents;
  }
  fields["localExtents"] = local;
  fields["partialExtents"] = parts.length;
  fields["remoteExtents"] = remote - parts.length;
}

/** Allocated runs of the file, as the file system tells them. */
async function countFile(store: FileStore, path: string, facts: FileFacts, fields: Fields): Promise<void> {
  fields["sizeBytes"] = facts.sizeBytes;
  fields["allocatedBytes"] = facts.allocatedBytes;
  const file = await store.open(path, { readOnly: true, access: "buffered" });
  try {
    let bytes = 0;
    let runs = 0;
    for (let at = file.nextData(0); at !== -1 && at < facts.sizeBytes; ) {
      const end = Math.min(facts.sizeBytes, file.nextHole(at));
      bytes += end - at;
      runs += 1;
      at = end < facts.sizeBytes ? file.nextData(end) : -1;
    }
    fields["dataBytes"] = bytes;
    fields["dataRuns"] = runs;
  } finally {
    await file.close();
  }
}

interface LogLook {
  readonly oldestLsn: number;
  readonly lastLsn: number;
  readonly diskBytes: number;
  readonly reachesBack: boolean;
  /** Why the log can't be opened, as a finding. */
  readonly refusal: string | null;
  /** How the log fits a checkpoint. */
  findings(checkpoint: Checkpoint): string[];
}

/** Reads the whole log. */
async function lookAtLog(setup: RepairSetup, checkpoint: Checkpoint | null): Promise<LogLook> {
  const appliedLsn = checkpoint?.appliedLsn ?? 0;
  /** Checksum of the batch that the checkpoint names, told by itself or by the one after it. */
  let checksum: bigint | null = null;
  let contentEntries = 0;
  let summary = { line: null as string | null, oldestLsn: 0, lastLsn: 0, diskBytes: 0 };
  let refusal: string | null = null;
  for await (const item of setup.inspectLog(appliedLsn)) {
    if (item.kind === "summary") {
      summary = item;
      refusal = item.refusal === null ? null : `${item.refusal.message}. ${item.refusal.hint}`;
    } else if (item.kind === "record") {
      if (item.lastLsn === appliedLsn) checksum = item.batch.checksum;
      if (item.batch.firstLsn === appliedLsn + 1) checksum = item.batch.previousChecksum;
      if (item.batch.firstLsn > appliedLsn) {
        contentEntries += item.batch.entries.filter((entry) => entry.kind !== "epoch").length;
      }
    }
  }
  const { line, oldestLsn, lastLsn, diskBytes } = summary;
  return {
    oldestLsn,
    lastLsn,
    diskBytes,
    refusal,
    reachesBack: refusal === null && oldestLsn === 1,
    findings: (known) => {
      const log = setup.paths.log;
      if (known.line !== null && line !== known.line) {
        return [
          `${log} is line ${line ?? "(none)"}, the image follows line ${known.line}: they do not belong together`,
        ];
      }
      if (lastLsn < appliedLsn) {
        return [
          `${log} ends at LSN ${lastLsn}, but the image holds LSN ${appliedLsn}: log files are missing`,
        ];
      }
      if (oldestLsn > appliedLsn + 1) {
        return [
          `${log} starts at LSN ${oldestLsn}, but the image holds only LSN ${appliedLsn}: log files are missing`,
        ];
      }
      if (checksum !== null && checksum !== known.batchChecksum) {
        return [
          `the batch at LSN ${appliedLsn} is not the one that the image holds: log and image do not belong together`,
        ];
      }
      if (known.detached !== null && !isAdoptBegun(known) && contentEntries > 0) {
        return [
          `the log holds ${contentEntries} entries that the image lacks although it was closed in good order`,
        ];
      }
      return [];
    },
  };
}
