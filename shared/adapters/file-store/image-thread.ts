/*
 * The image thread of a store: one worker that carries out applies (pwrite, fallocate, ftruncate) in order, so that neither
 * a page-cache copy nor a hole punch of 100 ms stands on the event loop. Owns the worker, started at the first apply and
 * ended by close(). Called by native-file.ts; image-worker.ts is the other side, image-operation.ts the message between.
 */
import { Worker } from "node:worker_threads";
import type { FileOperation } from "#shared/ports/file-store.ts";
import { type ApplyAnswer, encodeApply } from "./image-operation.ts";
import { errno } from "./libc.ts";

type Done = (failure: number, index: number) => void;

export class ImageThread {
  #worker: Worker | null = null;
  #closed = false;
  #nextJob = 1;
  readonly #pending = new Map<number, Done>();

  /** `done` gets 0, or the errno and the index of the operation that failed; never called from inside run(). */
  run(fd: number, operations: readonly FileOperation[], done: Done): void {
    if (this.#closed) {
      queueMicrotask(() => done(errno.EBADF, 0));
      return;
    }
    const job = this.#nextJob;
    this.#nextJob += 1;
    this.#pending.set(job, done);
    const worker = this.#worker ?? this.#start();
    // The process stays alive while an apply is under way, and only then.
    if (this.#pending.size === 1) worker.ref();
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker's port, not a window
    worker.postMessage(encodeApply(job, fd, operations));
  }

  #start(): Worker {
    const worker = new Worker(new URL("./image-worker.ts", import.meta.url), {
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 4, stackSizeMb: 1 },
    });
    worker.on("message", (answer: ApplyAnswer) => this.#answered(answer));
    // A crash of the thread: what it had in hand may be applied in part, so all of it fails.
    worker.on("error", () => this.#ended(worker));
    worker.on("exit", () => this.#ended(worker));
    worker.unref();
    this.#worker = worker;
    return worker;
  }

  #answered([job, failure, index]: ApplyAnswer): void {
    const done = this.#pending.get(job);
    this.#pending.delete(job);
    if (this.#pending.size === 0) this.#worker?.unref();
    done?.(failure, index);
  }

  #ended(worker: Worker): void {
    if (this.#worker !== worker) return;
    this.#worker = null;
    const lost = [...this.#pending.values()];
    this.#pending.clear();
    for (const done of lost) done(errno.EIO, 0);
  }

  /** Ends the thread; what it still had in hand fails with EIO. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#worker?.terminate();
  }
}
