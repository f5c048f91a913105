/*
 * The archive thread of a process: started at the first task, ended by close(). It is calm, which means that it gets only what nobody else
 * wants of the processor, so that writers do not feel it (ADR 008). Where others want all of it for longer than a task may wait,
 * a second worker with a share of its own takes over until that is past: archiving never starves. Used by services/archiver.
 *
 *   calm ── a task waits longer than archiveCalmMs ──► steady ── nothing to do for archiveSteadyMs ──► calm
 */
import type { ExtentRun } from "#shared/domain/archive.ts";
import { limits } from "#shared/domain/limits.ts";
import type { ForegroundLoad } from "#shared/memory/foreground-load.ts";
import type {
  ArchiveWorker,
  BuiltChunk,
  BuiltPage,
  SealedSegment,
  SegmentRecords,
  SegmentTail,
} from "#shared/ports/archive-worker.ts";
import type { Clock } from "#shared/ports/clock.ts";
import { ArchiveLane } from "./lane.ts";

export class ArchiveThread implements ArchiveWorker {
  readonly #clock: Clock;
  readonly #calm: ArchiveLane;
  readonly #steady: ArchiveLane;
  #isSteady = false;
  /** Tasks that the second worker took: for those who watch. */
  steadyTasks = 0;

  /** `foreground`: what the calm worker gives way to. */
  constructor(clock: Clock, foreground: ForegroundLoad | null = null) {
    this.#clock = clock;
    this.#calm = new ArchiveLane({ priority: "calm", foreground: foreground?.cells ?? null }, clock);
    this.#steady = new ArchiveLane({ priority: "steady", foreground: null }, clock);
  }

  async seal(records: SegmentRecords, level: number): Promise<SealedSegment> {
    return (await this.#lane().run({ kind: "seal", records, level })) as SealedSegment;
  }

  async page(volumeId: string, key: string, segments: readonly SegmentTail[]): Promise<BuiltPage> {
    return (await this.#lane().run({ kind: "page", volumeId, key, segments })) as BuiltPage;
  }

  async touched(
    segments: readonly SegmentTail[],
    pages: readonly Uint8Array[],
    afterLsn: number,
  ): Promise<readonly ExtentRun[]> {
    const task = { kind: "touched", segments, pages, afterLsn } as const;
    return (await this.#lane().run(task)) as readonly ExtentRun[];
  }

  async hash(memory: SharedArrayBuffer): Promise<string | null> {
    return (await this.#lane().run({ kind: "hash", memory })) as string | null;
  }

  async chunk(memory: SharedArrayBuffer, hash: string, level: number): Promise<BuiltChunk> {
    return (await this.#lane().run({ kind: "chunk", memory, hash, level })) as BuiltChunk;
  }

  /** Ends the workers; what they still had in hand is rejected. */
  async close(): Promise<void> {
    await Promise.all([this.#calm.end(true), this.#steady.end(true)]);
  }

  /** Who takes the next task. */
  #lane(): ArchiveLane {
    if (!this.#isSteady && this.#calm.waitingMs > limits.archiveCalmMs) {
      this.#isSteady = true;
      this.#watchSteady();
    }
    if (!this.#isSteady) return this.#calm;
    this.steadyTasks += 1;
    return this.#steady;
  }

  /** The second worker ends when it was idle at two looks, and the first has caught up. */
  #watchSteady(idleSince = -1): void {
    this.#clock.after(limits.archiveSteadyMs, () => {
      const isIdle = this.#steady.isIdle && this.#calm.waitingMs <= limits.archiveCalmMs;
      if (!isIdle || idleSince !== this.steadyTasks) {
        this.#watchSteady(isIdle ? this.steadyTasks : -1);
        return;
      }
      this.#isSteady = false;
      void this.#steady.end(false);
    });
  }
}
