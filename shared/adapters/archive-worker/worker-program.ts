/*
 * The archive thread's own program: takes one task after the other, answers each. Started by lane.ts; tasks.ts does the work. It gets
 * what the event loop and the image thread leave of the processor (priority.ts).
 */
import { parentPort, type Transferable, workerData } from "node:worker_threads";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import type { ArchiveAnswer, ArchiveFailure, ArchiveRequest, ArchiveTask } from "./message.ts";
import { type ThreadPriority, takePriority } from "./priority.ts";
import { chunkOf, hashOf, page, seal, touched } from "./tasks.ts";

/** Contents whose hash was asked for, until they are released. */
const contents = new Map<number, { readonly content: ArrayBuffer; readonly hash: string | null }>();

takePriority(workerData as ThreadPriority);

function held(number: number) {
  const content = contents.get(number);
  if (content === undefined) throw new VarveError("ArchiveThreadError", "Internal", "no such content");
  return content;
}

function run(number: number, task: ArchiveTask): { result: unknown; transfer: Transferable[] } {
  switch (task.kind) {
    case "seal": {
      const result = seal(task.records, task.level);
      const { buffer } = result.object;
      return { result, transfer: buffer instanceof ArrayBuffer ? [buffer] : [] };
    }
    case "page": {
      const result = page(task.volumeId, task.key, task.segments);
      return { result, transfer: [result.object.buffer as ArrayBuffer] };
    }
    case "touched":
      return { result: touched(task.segments, task.pages, task.afterLsn), transfer: [] };
    case "hash": {
      const hash = hashOf(task.content);
      contents.set(number, { content: task.content, hash });
      return { result: hash, transfer: [] };
    }
    case "build": {
      const { content, hash } = held(task.of);
      const result = chunkOf(content, hash ?? "", task.level);
      return { result, transfer: [result.object.buffer as ArrayBuffer] };
    }
    case "release":
    default: {
      const { content } = held(task.of);
      contents.delete(task.of);
      return { result: content, transfer: [content] };
    }
  }
}

function failureOf(cause: unknown): ArchiveFailure {
  const { _tag, kind, message, hint } = toVarveError(cause, "archive thread");
  return { tag: _tag, errorKind: kind, message, hint };
}

function answer(message: ArchiveAnswer, transfer: readonly Transferable[]): void {
  parentPort?.postMessage(message, transfer);
}

parentPort?.on("message", ({ number, task }: ArchiveRequest) => {
  try {
    const { result, transfer } = run(number, task);
    answer({ number, result }, transfer);
  } catch (cause) {
    answer({ number, failure: failureOf(cause) }, []);
  }
});
