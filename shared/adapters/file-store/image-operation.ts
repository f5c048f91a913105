/*
 * The message between the event loop and the image thread: one Float64Array per apply, [job, fd, then code, offset, length
 * and native address per operation]; a truncate has its size as offset. Written by image-thread.ts, read by
 * image-worker.ts. The answer is [job, errno (0 = all applied), index of the operation that failed].
 */
import type { FileOperation } from "#shared/ports/file-store.ts";

export const operationCode = { write: 0, punch: 1, zero: 2, truncate: 3 } as const;

export type ApplyAnswer = readonly [job: number, failure: number, index: number];

export const headNumbers = 2;
export const numbersPerOperation = 4;

export function encodeApply(job: number, fd: number, operations: readonly FileOperation[]): Float64Array {
  const message = new Float64Array(headNumbers + operations.length * numbersPerOperation);
  message[0] = job;
  message[1] = fd;
  let at = headNumbers;
  for (const operation of operations) {
    message[at] = operationCode[operation.kind];
    switch (operation.kind) {
      case "write":
        message[at + 1] = operation.offset;
        message[at + 2] = operation.piece.length;
        message[at + 3] = operation.piece.slab.address + operation.piece.start;
        break;
      case "punch":
      case "zero":
        message[at + 1] = operation.offset;
        message[at + 2] = operation.length;
        break;
      case "truncate":
        message[at + 1] = operation.sizeBytes;
        break;
    }
    at += numbersPerOperation;
  }
  return message;
}
