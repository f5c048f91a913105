/*
 * One worker of the archive thread: started at its first task, takes one after the other. Owns what is under way; worker-program.ts is
 * the other side, message.ts what goes between. Used by thread.ts.
 */
import { Worker } from "node:worker_threads";
import { VarveError } from "#shared/domain/errors.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { ArchiveAnswer, ArchiveRequest, ArchiveTask, ArchiveWorkerData } from "./message.ts";

interface Pending {
  readonly askedMs: number;
  readonly isSegment: boolean;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: VarveError) => void;
}

/** A segment that finds so many in hand is behind (ADR 008): who keeps up with the log has one or two. */
const segmentsBehindFrom = 2;

export class ArchiveLane {
  readonly #data: ArchiveWorkerData;
  readonly #clock: Clock;
  #worker: Worker | null = null;
  #closed = false;
  #nextNumber = 1;
  /** In the order in which they were asked. */
  readonly #pending = new Map<number, Pending>();

  constructor(data: ArchiveWorkerData, clock: Clock) {
    this.#data = data;
    this.#clock = clock;
  }

  get isIdle(): boolean {
    return this.#pending.size === 0;
  }

  /** How long the oldest task has been waiting for its answer; 0 without one. */
  get waitingMs(): number {
    for (const { askedMs } of this.#pending.values()) return this.#clock.monotonicMs() - askedMs;
    return 0;
  }

  get #segmentsInHand(): number {
    let count = 0;
    for (const { isSegment } of this.#pending.values()) count += isSegment ? 1 : 0;
    return count;
  }

  run(task: ArchiveTask): Promise<unknown> {
    const number = this.#nextNumber;
    this.#nextNumber += 1;
    const isSegment = task.kind === "seal";
    const isBehind = isSegment && this.#segmentsInHand >= segmentsBehindFrom;
    if (this.#closed) return Promise.reject(ended("the archive thread is closed"));
    const worker = this.#worker ?? this.#start();
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker's port, not a window
    worker.postMessage({ number, task, isBehind } satisfies ArchiveRequest);
    // Only what was handed over is waited for.
    const result = new Promise<unknown>((resolve, reject) => {
      this.#pending.set(number, { askedMs: this.#clock.monotonicMs(), isSegment, resolve, reject });
    });
    // The process stays alive while work is under way, and only then.
    if (this.#pending.size === 1) worker.ref();
    return result;
  }

  /** Ends the worker; what it still had in hand is rejected. With `forever`, what is asked later, too. */
  async end(forever: boolean): Promise<void> {
    this.#closed ||= forever;
    const worker = this.#worker;
    this.#worker = null;
    this.#failAll("the archive thread is closed");
    await worker?.terminate();
  }

  #start(): Worker {
    const worker = new Worker(new URL("./worker-program.ts", import.meta.url), {
      execArgv: [],
      workerData: this.#data,
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

  /** The next task starts another worker. */
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
