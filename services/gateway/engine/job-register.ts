/*
 * The long work of a process as others see it: what runs, how far it is, how it ended. Fills, rescues and collections report
 * here; the API shows it (GET /v1/jobs) and commands follow it. In memory: work that must survive a restart is found again
 * from what is stored (docs/specs/points.md, §7), and has a new job then.
 */
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { JobKind, JobState, JobView } from "#shared/ports/past-administration.ts";

export interface JobProgress {
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly note: string;
}

export class Job {
  readonly id: string;
  readonly kind: JobKind;
  readonly volume: string;
  doneBytes = 0;
  totalBytes = 0;
  note = "";
  private readonly clock: Clock;
  private readonly startedAtMs: number;
  private endedAtMs: number | null = null;
  private state: JobState = "running";
  private failure: VarveError | null = null;
  private source: (() => JobProgress) | null = null;

  constructor(id: string, kind: JobKind, volume: string, clock: Clock) {
    this.id = id;
    this.kind = kind;
    this.volume = volume;
    this.clock = clock;
    this.startedAtMs = clock.wallTimeMs();
  }

  get running(): boolean {
    return this.state === "running";
  }

  progress(doneBytes: number, totalBytes: number): void {
    this.doneBytes = doneBytes;
    this.totalBytes = totalBytes;
  }

  /** Progress is asked for when somebody looks, as long as it runs. */
  follow(source: () => JobProgress): void {
    this.source = source;
  }

  /** The first end counts. */
  done(note = this.note): void {
    this.end("done", note);
  }

  /** Somebody ended it, or the process stops; it is not a failure. */
  stopped(note: string): void {
    this.end("stopped", note);
  }

  failed(cause: unknown): void {
    if (!this.running) return;
    this.failure = toVarveError(cause, `${this.kind} ${this.volume}`);
    this.end("failed", this.failure.message);
  }

  view(): JobView {
    this.look();
    const { id, kind, volume, state, startedAtMs, endedAtMs, doneBytes, totalBytes, note, failure } = this;
    return { id, kind, volume, state, startedAtMs, endedAtMs, doneBytes, totalBytes, note, failure };
  }

  private look(): void {
    if (!this.running || this.source === null) return;
    const { doneBytes, totalBytes, note } = this.source();
    this.progress(doneBytes, totalBytes);
    this.note = note;
  }

  private end(state: JobState, note: string): void {
    if (!this.running) return;
    this.look();
    this.source = null;
    this.state = state;
    this.note = note;
    this.endedAtMs = this.clock.wallTimeMs();
  }
}

export class JobRegister {
  private readonly clock: Clock;
  private readonly random: Random;
  private readonly found = new Map<string, Job>();

  constructor(clock: Clock, random: Random) {
    this.clock = clock;
    this.random = random;
  }

  start(kind: JobKind, volume: string): Job {
    const job = new Job(this.random.hex(6), kind, volume, this.clock);
    this.found.set(job.id, job);
    this.forgetOldest();
    return job;
  }

  /** Newest first. */
  list(): readonly JobView[] {
    return [...this.found.values()].map((job) => job.view()).reverse();
  }

  show(id: string): JobView {
    const job = this.found.get(id);
    if (job !== undefined) return job.view();
    throw new VarveError("UnknownJobError", "Invalid", `there is no job ${JSON.stringify(id)}`, {
      hint: `GET /v1/jobs lists the last ${limits.jobsMax}; a restart forgets them.`,
      fields: { id },
    });
  }

  /** Running ones are never forgotten: there is at most one of a kind for each volume. */
  private forgetOldest(): void {
    for (const job of this.found.values()) {
      if (this.found.size <= limits.jobsMax) return;
      if (!job.running) this.found.delete(job.id);
    }
  }
}
