/*
 * When one volume's bases are taken: after each manifest it asks the schedule, and takes one at a time; whoever wants a base waits for
 * the one under way. Owned by volume-archiver.ts; next: base-builder.ts.
 */
import type { BaseRef, VolumeManifest } from "#shared/domain/archive.ts";
import { toVarveError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import type { BaseBuilder } from "./base-builder.ts";
import type { BaseSchedule } from "./base-schedule.ts";

export interface BaseTakerOptions {
  readonly builder: BaseBuilder;
  readonly schedule: BaseSchedule;
  readonly present: () => VolumeManifest | null;
  /** Entries that were in the log before anybody looked for rebases in it: known once they are archived. */
  readonly openedLsn: number;
  readonly onNote: (text: string) => void;
}

export class BaseTaker {
  private readonly options: BaseTakerOptions;
  private building: Promise<BaseRef | null> | null = null;
  /** Manifests came while a base was taken: another may be due. */
  private reconsiders = false;
  private stopped = false;

  constructor(options: BaseTakerOptions) {
    this.options = options;
  }

  /** A manifest was published. */
  consider(manifest: VolumeManifest): void {
    const { builder, schedule, openedLsn, onNote } = this.options;
    if (this.building !== null) this.reconsiders = true;
    if (this.building !== null || this.stopped || manifest.archivedLsn < openedLsn) return;
    this.build(async () => ((await schedule.isDue(manifest)) ? await builder.build() : null)).catch(
      (cause: unknown) => {
        const error = toVarveError(cause, "taking a base");
        if (error.kind !== "Retry" && !this.stopped) onNote(`no base was taken: ${error.message}`);
      },
    );
  }

  /** A base that begins at `lsn` or later: one that is there, or the next. The log up to there is archived. */
  async since(lsn: number): Promise<{ readonly s: number; readonly e: number }> {
    for (;;) {
      const there = this.options.present()?.bases.findLast((base) => base.s >= lsn);
      if (there !== undefined) return { s: there.s, e: there.e };
      if (this.building !== null) await this.building.catch(() => null);
      else await this.build(() => this.options.builder.build());
    }
  }

  stop(): void {
    this.stopped = true;
    this.options.builder.stop();
  }

  /** Resolves when no base is being taken. */
  async settled(): Promise<void> {
    await this.building?.catch(() => null);
  }

  /** One at a time. */
  private async build(work: () => Promise<BaseRef | null>): Promise<BaseRef | null> {
    invariant(this.building === null, "one base at a time");
    this.building = work();
    try {
      return await this.building;
    } finally {
      this.building = null;
      const manifest = this.options.present();
      if (this.reconsiders && manifest !== null) {
        this.reconsiders = false;
        this.consider(manifest);
      }
    }
  }
}
