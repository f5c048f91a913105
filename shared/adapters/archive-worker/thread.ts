/*
 * The archive thread of a process: one worker at a lower priority, started at the first task and ended by close(). Owns what is
 * under way; worker-program.ts is the other side, message.ts what goes between. Used by services/archiver.
 */
import { type Transferable, Worker } from "node:worker_threads";
import type { ExtentRun } from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type {
  ArchiveWorker,
  BuiltChunk,
  BuiltPage,
  HashedExtent,
  SealedSegment,
  SegmentRecords,
  SegmentTail,
} from "#shared/ports/archive-worker.ts";
import type { ArchiveAnswer, ArchiveRequest, ArchiveTask } from "./message.ts";

interface Pending {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: VarveError) => void;
}

export class ArchiveThread implements ArchiveWorker {
  #worker: Worker | null = null;
  #closed = false;
  #nextNumber = 1;
  readonly #pending = new Map<number, Pending>();

  async seal(records: SegmentRecords, level: number): Promise<SealedSegment> {
    return (await this.#run({ kind: "seal", records, level }).result) as SealedSegment;
  }

  async page(volumeId: string, key: string, segments: readonly SegmentTail[]): Promise<BuiltPage> {
    return (await this.#run({ kind: "page", volumeId, key, segments }).result) as BuiltPage;
  }

  async touched(
    segments: readonly SegmentTail[],
    pages: readonly Uint8Array[],
    afterLsn: number,
  ): Promise<readonly ExtentRun[]> {
    const task = { kind: "touched", segments, pages, afterLsn } as const;
    return (await this.#run(task).result) as readonly ExtentRun[];
  }

  async hash(content: ArrayBuffer): Promise<HashedExtent> {
    const { number, result } = this.#run({ kind: "hash", content }, [content]);
    const hash = (await result) as string | null;
    return {
      hash,
      build: async (level) => (await this.#run({ kind: "build", of: number, level }).result) as BuiltChunk,
      release: async () => (await this.#run({ kind: "release", of: number }).result) as ArrayBuffer,
    };
  }

  /** Ends the thread; what it still had in hand is rejected. */
  async close(): Promise<void> {
    this.#closed = true;
    const worker = this.#worker;
    this.#worker = null;
    this.#failAll("the archive thread is closed");
    await worker?.terminate();
  }

  #run(
    task: ArchiveTask,
    transfer: readonly Transferable[] = [],
  ): { number: number; result: Promise<unknown> } {
    const number = this.#nextNumber;
    this.#nextNumber += 1;
    if (this.#closed) return { number, result: Promise.reject(ended("the archive thread is closed")) };
    const result = new Promise<unknown>((resolve, reject) => {
      this.#pending.set(number, { resolve, reject });
    });
    const worker = this.#worker ?? this.#start();
    // The process stays alive while work is under way, and only then.
    if (this.#pending.size === 1) worker.ref();
    worker.postMessage({ number, task } satisfies ArchiveRequest, transfer);
    return { number, result };
  }

  #start(): Worker {
    const worker = new Worker(new URL("./worker-program.ts", import.meta.url), {
      execArgv: [],
      // An index page of the largest summaries is 31 MB of JSON, and its objects some times that.
      resourceLimits: { maxOldGenerationSizeMb: 256, maxYoungGenerationSizeMb: 16 },
    });
    worker.on("message", (answer: ArchiveAnswer) => this.#answered(answer));
    worker.on("error", (error) => this.#ended(worker, String(error)));
    worker.on("exit", () => this.#ended(worker, "the archive thread ended"));
    worker.unref();
    this.#worker = worker;
    return worker;
  }

  #answered(answer: ArchiveAnswer): void {
    const pending = this.#pending.get(answer.number);
    this.#pending.delete(answer.number);
    if (this.#pending.size === 0) this.#worker?.unref();
    if ("failure" in answer) {
      const { tag, errorKind, message, hint } = answer.failure;
      pending?.reject(new VarveError(tag, errorKind, message, { hint }));
    } else pending?.resolve(answer.result);
  }

  /** The next task starts another thread. */
  #ended(worker: Worker, why: string): void {
    if (this.#worker !== worker) return;
    this.#worker = null;
    this.#failAll(why);
  }

  #failAll(why: string): void {
    const lost = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of lost) reject(ended(why));
  }
}

function ended(why: string): VarveError {
  return new VarveError("ArchiveThreadEnded", "Retry", why, { hint: "Archiving goes on with the next try." });
}
