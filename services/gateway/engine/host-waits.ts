/*
 * What changes of a volume host wait for beside files: the bucket, and clients that were cut off. Both waits are bounded, and
 * end with the host, so that nobody else's change waits behind one for long. Part of volume-host.ts.
 */

import type { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Clock } from "#shared/ports/clock.ts";
import { bucketAway, hostClosing } from "./host-errors.ts";

/** Who can cut connections: the NBD server, once it listens. */
export interface ConnectionCutter {
  disconnectExport(name: string): void;
}

interface Attached {
  readonly name: string;
  readonly attachedClients: number;
}

/** Between two looks at whether cut connections are gone. */
const disconnectPollMs = 10;

export class HostWaits {
  cutter: ConnectionCutter | null = null;
  private readonly clock: Clock;
  private readonly waiting = new Set<() => void>();

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** Cuts a volume's connections; resolves with how many there were, when they are gone. */
  async disconnect(volume: Attached): Promise<number> {
    const attached = volume.attachedClients;
    if (attached === 0) return 0;
    this.cutter?.disconnectExport(volume.name);
    const untilMs = this.clock.monotonicMs() + limits.disconnectMs;
    while (volume.attachedClients > 0 && this.clock.monotonicMs() < untilMs) {
      await new Promise<void>((resolve) => {
        this.clock.after(disconnectPollMs, resolve);
      });
    }
    return attached - volume.attachedClients;
  }

  /**
   * Rejects after limits.bucketCommandMs, Retry or as what keeps the volume from its bucket, and Retry when the host closes; the work
   * itself may go on.
   */
  async forBucket<T>(
    work: Promise<T>,
    past: { readonly archiveError: VarveError | null } | null = null,
  ): Promise<T> {
    work.catch(() => undefined); // told below, unless the wait ended first
    return await new Promise<T>((resolve, reject) => {
      const timer = this.clock.after(limits.bucketCommandMs, () =>
        reject(bucketAway(past?.archiveError ?? null)),
      );
      const stop = (): void => reject(hostClosing());
      this.waiting.add(stop);
      const end = (): void => {
        timer.cancel();
        this.waiting.delete(stop);
      };
      work
        .then(resolve, reject)
        .finally(end)
        .catch(() => undefined);
    });
  }

  /** Ends every wait for the bucket. */
  close(): void {
    for (const stop of this.waiting) stop();
    this.waiting.clear();
  }
}
