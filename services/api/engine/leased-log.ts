/*
 * A volume's log as the api process opens it, under the volume's lease: the epoch entry that this appends fences every gateway. Used by
 * cluster-rollback.ts, which appends to it, and by cluster-undelete.ts, which begins one.
 */
import { toVarveError } from "#shared/domain/errors.ts";
import type { Lease } from "#shared/ports/lease.ts";
import type { LogBeginning, LogWriter, WriteLog } from "#shared/ports/write-log.ts";

export interface LeasedOpening {
  /** Who writes, for the epoch entry. */
  readonly writer: string;
  readonly knownLsn: number;
  /** Where there is no log yet. */
  readonly begin?: LogBeginning;
}

const epochRaisesMax = 8;

/** The log may know greater epochs than the lease, where its table was lost. */
export async function openLeased(log: WriteLog, lease: Lease, opening: LeasedOpening): Promise<LogWriter> {
  const listener = { stored: () => undefined, durable: () => undefined, halted: () => undefined };
  for (let raises = 0; ; raises += 1) {
    try {
      const { epoch } = lease;
      const renewEpoch = async (above: number): Promise<number | null> => lease.raiseEpoch(above);
      return await log.open({ ...opening, durability: "write", listener, epoch, renewEpoch });
    } catch (cause) {
      const error = toVarveError(cause, "open the log");
      const newer = error.kind === "Fenced" ? error.fields["epoch"] : undefined;
      if (typeof newer !== "number" || raises >= epochRaisesMax) throw error;
      if ((await lease.raiseEpoch(newer)) === null) throw error;
    }
  }
}
