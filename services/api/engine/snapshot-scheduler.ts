/*
 * Takes the snapshots that volumes' schedules want, and lets those go that are too many (docs/specs/apply.md#snapshot-schedules). Run by
 * `varve up` and by the api processes of a cluster, where a lease says which of them looks. Below it: the past of volumes.
 */
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { dueSnapshot, surplusSnapshots } from "#shared/domain/snapshot-slots.ts";
import type { SnapshotSchedule } from "#shared/domain/volume-orders.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import type { PastAdministration } from "#shared/ports/past-administration.ts";
import type { VolumeView } from "#shared/ports/volume-administration.ts";

export interface SnapshotSchedulerOptions {
  readonly clock: Clock;
  readonly volumes: () => readonly VolumeView[];
  readonly past: Pick<PastAdministration, "snapshots" | "createSnapshot" | "deleteSnapshot">;
  /** True while this process is the one that looks; asked before each look. Never rejects. */
  readonly mayLook: () => Promise<boolean>;
  readonly onNote: (text: string) => void;
}

/** Somebody else did it, or there is nothing that could be named: no trouble. */
const noTrouble = new Set(["SnapshotExistsError", "UnknownSnapshotError", "NothingWritten"]);

export class SnapshotScheduler {
  readonly #options: SnapshotSchedulerOptions;
  /** What was told of a volume, so that it is told once. */
  readonly #told = new Map<string, string>();
  #timer: Timer | null = null;
  #looking: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(options: SnapshotSchedulerOptions) {
    this.#options = options;
  }

  start(): void {
    this.#timer = this.#options.clock.after(limits.scheduleLookMs, () => {
      this.#looking = this.look().finally(() => {
        if (!this.#stopped) this.start();
      });
    });
  }

  /** Resolves when no look is under way, and none will be. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    await this.#looking;
  }

  /** Never rejects. */
  async look(): Promise<void> {
    const volumes = this.#options
      .volumes()
      .filter(({ orders, condition }) => orders.schedules.length > 0 && condition !== "deleting");
    if (volumes.length === 0 || !(await this.#options.mayLook())) return;
    for (const { name, orders } of volumes) {
      if (this.#stopped) return;
      try {
        for (const schedule of orders.schedules) await this.#keep(name, schedule);
        this.#told.delete(name);
      } catch (cause) {
        this.#tell(name, cause as Error);
      }
    }
  }

  async #keep(volume: string, schedule: SnapshotSchedule): Promise<void> {
    const { clock, past } = this.#options;
    const due = dueSnapshot(schedule, past.snapshots(volume), clock.wallTimeMs());
    if (due !== null) await untroubled(past.createSnapshot(volume, due));
    for (const name of surplusSnapshots(schedule, past.snapshots(volume))) {
      await untroubled(past.deleteSnapshot(volume, name));
    }
  }

  #tell(volume: string, { message }: Error): void {
    if (this.#told.get(volume) === message) return;
    this.#told.set(volume, message);
    this.#options.onNote(`warning: a scheduled snapshot of ${volume} is late: ${message}`);
  }
}

async function untroubled(work: Promise<unknown>): Promise<void> {
  try {
    await work;
  } catch (cause) {
    if (!(cause instanceof VarveError && noTrouble.has(cause._tag))) throw cause;
  }
}
