/*
 * The pasts of all volumes of a cluster, as one process reads them: a subject per volume that the catalogue has, served to the others so
 * that clones find their parents' logs, too. Made by the cluster layers of gateway, api and archiver over one store.
 */
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { VolumeHistory } from "#shared/ports/history.ts";
import type { HistoryHome } from "#shared/ports/history-home.ts";
import type { LogFollower } from "#shared/ports/log-follower.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import type { PastRecords } from "#shared/ports/past-records.ts";
import { RemoteSubject } from "./remote-subject.ts";

export interface RemoteHistoriesOptions {
  readonly home: HistoryHome;
  readonly store: ObjectStore;
  readonly past: Pick<PastRecords, "historyOf">;
  readonly logOf: (volumeId: string) => LogFollower;
  readonly clock: Pick<Clock, "after" | "monotonicMs">;
}

interface Known {
  readonly history: VolumeHistory;
  readonly stopServing: () => void;
}

export class RemoteHistories {
  readonly #options: RemoteHistoriesOptions;
  readonly #known = new Map<string, Known>();

  constructor(options: RemoteHistoriesOptions) {
    this.#options = options;
  }

  of({ id: volumeId, sizeBytes: beginBytes }: VolumeRecord): VolumeHistory {
    const known = this.#known.get(volumeId);
    if (known !== undefined) return known.history;
    const { home, store, past, logOf, clock } = this.#options;
    const subject = new RemoteSubject({ volumeId, store, past, log: logOf(volumeId), beginBytes, clock });
    const made = { history: home.of(subject), stopServing: home.serve(subject) };
    this.#known.set(volumeId, made);
    return made.history;
  }

  /** Volumes that the catalogue no longer has. */
  keepOnly(records: readonly VolumeRecord[]): void {
    const ids = new Set(records.map(({ id }) => id));
    for (const [id, { stopServing }] of this.#known) {
      if (ids.has(id)) continue;
      stopServing();
      this.#known.delete(id);
    }
  }
}
