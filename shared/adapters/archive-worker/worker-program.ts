/*
 * The archive thread's own program: takes one task after the other, answers each. Started by lane.ts; tasks.ts does the work. It gets
 * what the event loop and the image thread leave of the processor (priority.ts, give-way.ts).
 */
import { parentPort, type Transferable, workerData } from "node:worker_threads";
import { toVarveError } from "#shared/domain/errors.ts";
import { GiveWay } from "./give-way.ts";
import type {
  ArchiveAnswer,
  ArchiveFailure,
  ArchiveRequest,
  ArchiveTask,
  ArchiveWorkerData,
} from "./message.ts";
import { takePriority } from "./priority.ts";
import { CompressingTasks, hashOf, page, touched } from "./tasks.ts";

const { priority, foreground } = workerData as ArchiveWorkerData;
takePriority(priority);
const giveWay = foreground === null ? null : new GiveWay(foreground);
const beforePiece = (): void => giveWay?.wait();
const tasks = new CompressingTasks(beforePiece);

function run(task: ArchiveTask): { result: unknown; transfer: Transferable[] } {
  switch (task.kind) {
    case "seal": {
      const result = tasks.seal(task.records, task.level);
      return { result, transfer: handedOver(result.object) };
    }
    case "page": {
      const result = page(task.volumeId, task.key, task.segments);
      return { result, transfer: [result.object.buffer as ArrayBuffer] };
    }
    case "touched":
      return { result: touched(task.segments, task.pages, task.afterLsn), transfer: [] };
    case "hash":
      return { result: hashOf(task.memory, beforePiece), transfer: [] };
    case "chunk":
    default: {
      const result = tasks.chunk(task.memory, task.hash, task.level);
      return { result, transfer: handedOver(result.object) };
    }
  }
}

function handedOver({ buffer }: Uint8Array): Transferable[] {
  return buffer instanceof ArrayBuffer ? [buffer] : [];
}

function failureOf(cause: unknown): ArchiveFailure {
  const { _tag, kind, message, hint } = toVarveError(cause, "archive thread");
  return { tag: _tag, errorKind: kind, message, hint };
}

function answer(message: ArchiveAnswer, transfer: readonly Transferable[]): void {
  parentPort?.postMessage(message, transfer);
}

parentPort?.on("message", ({ number, task, isBehind }: ArchiveRequest) => {
  giveWay?.begin(isBehind);
  try {
    const { result, transfer } = run(task);
    answer({ number, result }, transfer);
  } catch (cause) {
    answer({ number, failure: failureOf(cause) }, []);
  }
});
