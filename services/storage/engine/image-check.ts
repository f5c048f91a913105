/*
 * `varve image check`: does the image file still belong to its checkpoint? Reads the checkpoint, the file's facts and its
 * holes, changes nothing, and says what it found with the way out. Called by services/storage/layer.ts for a volume whose
 * session is closed; image-adopt.ts and image-discard.ts start from the same look.
 */
import { checkpointPathOf, type VolumePaths } from "#shared/domain/data-layout.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import {
  type BadCheckpoint,
  type Checkpoint,
  decodeCheckpoint,
  isBadCheckpoint,
} from "#shared/formats/checkpoint.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { FileFacts, FileStore } from "#shared/ports/file-store.ts";
import type { ReplicaImage } from "#shared/ports/replica-image.ts";
import type { ImageReport } from "#shared/ports/volume-administration.ts";
import type { WriteLog } from "#shared/ports/write-log.ts";

/** What a repair works on: a volume whose session is closed, its log not open. */
export interface RepairSetup {
  readonly store: FileStore;
  readonly clock: Clock;
  readonly volume: VolumeRecord;
  readonly paths: VolumePaths;
  readonly log: WriteLog;
  /** Attaches the image through its adapter, with all of its checks. */
  readonly attach: () => Promise<ReplicaImage>;
}

/** Image and checkpoint as they lie there. */
export interface ImageLook {
  readonly facts: FileFacts | null;
  /** Null: there is none. */
  readonly checkpoint: Checkpoint | BadCheckpoint | null;
}

export async function lookAtImage(setup: RepairSetup): Promise<ImageLook> {
  const bytes = await setup.store.readWhole(checkpointPathOf(setup.paths.image));
  return {
    facts: await setup.store.facts(setup.paths.image),
    checkpoint: bytes === null ? null : decodeCheckpoint(bytes),
  };
}

export async function checkImage(setup: RepairSetup): Promise<ImageReport> {
  const { facts, checkpoint } = await lookAtImage(setup);
  const name = setup.volume.name;
  const findings: string[] = [];
  const fields: Record<string, string | number | boolean> = { image: setup.paths.image };
  if (facts === null) findings.push(`${setup.paths.image} does not exist: \`varve image discard ${name}\``);
  else {
    fields["sizeBytes"] = facts.sizeBytes;
    fields["allocatedBytes"] = facts.allocatedBytes;
    const data = await countData(setup.store, setup.paths.image, facts.sizeBytes);
    fields["dataBytes"] = data.bytes;
    fields["dataRuns"] = data.runs;
  }
  findings.push(...checkpointFindings(setup, checkpoint, facts, fields));
  return { name, clean: findings.length === 0, findings, fields };
}

function checkpointFindings(
  setup: RepairSetup,
  checkpoint: ImageLook["checkpoint"],
  facts: FileFacts | null,
  fields: Record<string, string | number | boolean>,
): string[] {
  const { name, id } = setup.volume;
  const path = checkpointPathOf(setup.paths.image);
  if (checkpoint === null) return [`${path} does not exist: \`varve image discard ${name}\``];
  if (isBadCheckpoint(checkpoint)) {
    return [`${path} is damaged (${checkpoint.detail}): \`varve image discard ${name}\``];
  }
  fields["appliedLsn"] = checkpoint.appliedLsn;
  fields["detached"] = checkpoint.detached !== null;
  if (checkpoint.volumeId !== id) return [`${path} belongs to volume id ${checkpoint.volumeId}, not ${id}`];
  if (facts === null) return [];
  const { detached } = checkpoint;
  if (detached === null) {
    return [
      `Varve did not close this image in good order; the next start applies the log from LSN ${checkpoint.appliedLsn + 1} on`,
    ];
  }
  const changed = (["sizeBytes", "inode", "mtimeNs", "ctimeNs"] as const).filter(
    (fact) => detached[fact] !== facts[fact],
  );
  if (changed.length === 0) return [];
  return [
    `the image was changed while Varve did not hold it (${changed.map((fact) => factNames[fact]).join(", ")}): ` +
      `\`varve image adopt ${name}\` keeps the change, \`varve image discard ${name}\` throws it away`,
  ];
}

const factNames = {
  sizeBytes: "size",
  inode: "inode",
  mtimeNs: "time of last write",
  ctimeNs: "time of last change",
} as const;

/** Allocated runs of the file, as the file system tells them. */
async function countData(
  store: FileStore,
  path: string,
  sizeBytes: number,
): Promise<{ readonly bytes: number; readonly runs: number }> {
  const file = await store.open(path, { readOnly: true, access: "buffered" });
  try {
    let bytes = 0;
    let runs = 0;
    for (let at = file.nextData(0); at !== -1 && at < sizeBytes; ) {
      const end = Math.min(sizeBytes, file.nextHole(at));
      bytes += end - at;
      runs += 1;
      at = end < sizeBytes ? file.nextData(end) : -1;
    }
    return { bytes, runs };
  } finally {
    await file.close();
  }
}
