/*
 * Scheduled snapshots as a part of a process: `varve up` runs them alone, the api processes of a cluster one at a time by a lease. The
 * engine is engine/snapshot-scheduler.ts.
 */
import { SystemClock } from "#shared/adapters/clock/system.ts";
import type { Lease, Leases } from "#shared/ports/lease.ts";
import type { PastAdministration } from "#shared/ports/past-administration.ts";
import type { VolumeAdministration } from "#shared/ports/volume-administration.ts";
import { SnapshotScheduler } from "./engine/snapshot-scheduler.ts";

export interface RunningSchedules {
  stop(): Promise<void>;
}

export interface ScheduleParts {
  readonly volumes: Pick<VolumeAdministration, "list">;
  readonly past: PastAdministration;
  readonly onNote: (text: string) => void;
}

const leaseKey = "schedules.snapshots";
/** What a process's leases have to watch, so that it can take that one. */
export const scheduleLeasePrefix = "schedules.";

export function runSchedules({ volumes, past, onNote }: ScheduleParts): RunningSchedules {
  const scheduler = new SnapshotScheduler({
    clock: new SystemClock(),
    volumes: () => volumes.list(),
    past,
    mayLook: async () => true,
    onNote,
  });
  scheduler.start();
  return scheduler;
}

/** `leases` watch scheduleLeasePrefix. Who holds the lease keeps it until the process ends. */
export function runSharedSchedules(
  { volumes, past, onNote }: ScheduleParts,
  leases: Leases,
  holder: string,
): RunningSchedules {
  let held: Lease | null = null;
  const mayLook = async (): Promise<boolean> => {
    if (held !== null) return held.remainingMs() > 0;
    try {
      const lease = await leases.take(leaseKey, { holder, address: "" });
      lease.onLost(() => {
        held = null;
      });
      held = lease;
      return true;
    } catch {
      return false; // another one has it, or nobody can have it now: asked again at the next look
    }
  };
  const scheduler = new SnapshotScheduler({
    clock: new SystemClock(),
    volumes: () => volumes.list(),
    past,
    mayLook,
    onNote,
  });
  scheduler.start();
  return {
    stop: async () => {
      await scheduler.stop();
      await held?.release();
      leases.close();
    },
  };
}
