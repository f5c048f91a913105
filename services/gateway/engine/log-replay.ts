/*
 * Applies what the log has past an image's checkpoint, at the open of a volume (volume-session.ts), in runs of some MiB, with
 * checkpoints behind it. Next on data's way: ReplicaImage.apply.
 */
import type { Batch } from "#shared/domain/batch.ts";
import { toVarveError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import type { ReplicaImage } from "#shared/ports/replica-image.ts";
import type { SpaceAdmission } from "#shared/ports/space-admission.ts";
import type { LogWriter } from "#shared/ports/write-log.ts";

export interface LogReplayOptions {
  readonly log: LogWriter;
  readonly image: ReplicaImage;
  readonly admission: SpaceAdmission;
  /**
   * A checkpoint while the replay goes on. A process that is killed again and again before its first regular checkpoint would replay
   * more each time (measured: 30 s after 45 kills); so each life moves the checkpoint, if it lasts as long as one takes.
   */
  readonly checkpoint: () => void;
  /** A checkpoint follows each so many bytes; the simulator wants them often. */
  readonly bytesPerCheckpoint: number | undefined;
  /** Progress: LSN applied, last LSN. */
  readonly onReplay: ((appliedLsn: number, lastLsn: number) => void) | undefined;
}

const replayBytesPerApply = 8 * 1024 * 1024;
const replayBytesPerCheckpoint = 64 * 1024 * 1024;

/** At least the epoch entry that open() appended is replayed. */
export async function replayLog(options: LogReplayOptions): Promise<void> {
  const { log, image, bytesPerCheckpoint, onReplay } = options;
  const { appliedLsn } = image.state();
  const { lastLsn } = log.state();
  invariant(lastLsn > appliedLsn, "an opened log ends with its epoch entry");
  let run: Batch[] = [];
  let runBytes = 0;
  let uncheckedBytes = 0;
  for await (const batch of log.read(appliedLsn + 1)) {
    // A batch read from the log is valid only until the next one; a run of them needs its own payload.
    run.push({ ...batch, payload: Buffer.from(batch.payload) });
    runBytes += batch.payload.byteLength;
    if (runBytes < Math.min(replayBytesPerApply, bytesPerCheckpoint ?? Infinity)) continue;
    await applyReplayed(run, options);
    onReplay?.(image.state().appliedLsn, lastLsn);
    uncheckedBytes += runBytes;
    run = [];
    runBytes = 0;
    if (uncheckedBytes < (bytesPerCheckpoint ?? replayBytesPerCheckpoint)) continue;
    uncheckedBytes = 0;
    options.checkpoint();
  }
  if (run.length > 0) await applyReplayed(run, options);
  invariant(image.state().appliedLsn === lastLsn, "replay reaches the end of the log");
  onReplay?.(lastLsn, lastLsn);
}

/** These entries were acknowledged by a former process: the reserve is theirs, too. */
async function applyReplayed(
  run: readonly Batch[],
  { image, admission }: Pick<LogReplayOptions, "image" | "admission">,
): Promise<void> {
  for (;;) {
    try {
      await image.apply(run);
      return;
    } catch (cause) {
      const error = toVarveError(cause, "replay");
      if (error.kind !== "Full" || !(await admission.makeRoom(() => false))) throw error;
    }
  }
}
