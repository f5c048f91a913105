/*
 * The fill of one volume as a job: at most one at a time, whoever asked for it; its progress is the replica's. hosted-volume.ts
 * starts one when a volume opens with remote extents, after a clone or rollback, and for `volume fill`.
 */
import { limits } from "#shared/domain/limits.ts";
import type { ReplicaTending } from "#shared/ports/replica-home.ts";
import type { ResidencyState } from "#shared/ports/replica-residency.ts";
import type { Job, JobRegister } from "./job-register.ts";

/** Why extents are fetched. */
export type FillKind = "create from" | "rollback" | "fill";

export class FillJobs {
  private readonly register: JobRegister;
  private readonly volume: string;
  private job: Job | null = null;

  constructor(register: JobRegister, volume: string) {
    this.register = register;
    this.volume = volume;
  }

  get lastJob(): string | null {
    return this.job?.id ?? null;
  }

  /** The id of the job that makes every extent local. */
  start(kind: FillKind, tending: ReplicaTending | null, residency: ResidencyState | null): string {
    if (this.job?.running === true) return this.job.id;
    const job = this.register.start(kind, this.volume);
    this.job = job;
    if (tending === null || residency === null) {
      job.done("every extent is local");
      return job.id;
    }
    const toFetch = residency.extents - residency.localExtents;
    const totalBytes = toFetch * limits.extentBytes;
    job.follow(() => {
      const { remainingExtents, state, error } = tending.status();
      const doneBytes = Math.max(0, toFetch - remainingExtents) * limits.extentBytes;
      return { doneBytes, totalBytes, note: error === null ? state : `${state}: ${error.message}` };
    });
    tending.fill().then(
      () => {
        job.progress(totalBytes, totalBytes);
        job.done("every extent is local");
      },
      (cause: unknown) => job.failed(cause),
    );
    return job.id;
  }

  /** Work that needs no fetching in the background: what is read is fetched. */
  onDemand(kind: "create from" | "rollback"): string {
    const job = this.register.start(kind, this.volume);
    job.done("residency tiered: extents are fetched when they are read");
    this.job = job;
    return job.id;
  }

  stop(note: string): void {
    this.job?.stopped(note);
  }
}
