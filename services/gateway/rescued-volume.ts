/*
 * The files of a volume that comes back from a bucket: history file, replica with every byte still in the bucket, and a log that
 * goes on behind the archived entry on the new line. Called inside VolumeHost.bringBack() for `varve rescue` and
 * `varve volume undelete`; a crash leaves a record "creating", whose files the next start removes.
 */
import { EmbeddedFileLog } from "#shared/adapters/write-log/embedded-file.ts";
import { historyPathOf, type VolumePaths } from "#shared/domain/data-layout.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { ReplicaHome } from "#shared/ports/replica-home.ts";
import type { RescuePlan } from "#shared/ports/rescue.ts";
import { HistoryFile } from "./engine/history-file.ts";

export interface RescuedVolumeParts {
  readonly store: FileStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly replicas: Pick<ReplicaHome, "create">;
  /** Who writes the log's first entry. */
  readonly writer: string;
}

/** Its directory exists and is empty. Durable when it resolves. */
export async function makeRescuedFiles(
  parts: RescuedVolumeParts,
  plan: RescuePlan,
  paths: VolumePaths,
): Promise<void> {
  const { record, history, replica, log: begin } = plan;
  const { store, clock, random } = parts;
  await HistoryFile.create(store, historyPathOf(paths), history);
  await parts.replicas.create(record, paths, replica ?? undefined);
  const log = new EmbeddedFileLog({ store, clock, random, directory: paths.log, volumeId: record.id });
  await log.open({
    writer: parts.writer,
    durability: record.durability,
    listener: { stored: () => undefined, durable: () => undefined, halted: () => undefined },
    knownLsn: begin.lastLsn,
    begin,
  });
  await log.close();
}
