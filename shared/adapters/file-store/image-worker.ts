/*
 * The image thread's own program: takes one message per apply, carries its operations out in order by native addresses and
 * answers with one message. Started by image-thread.ts; image-operation.ts is the message; the kernel's page cache comes
 * next. The payload stays in the slabs: only addresses travel.
 */
import { parentPort } from "node:worker_threads";
import { type ApplyAnswer, headNumbers, numbersPerOperation, operationCode } from "./image-operation.ts";
import { errno, lastErrno, libc, linux } from "./libc.ts";
import { mapSlab } from "./native-memory.ts";

const zeroesBytes = 1024 * 1024;
let zeroes: { readonly address: number } | null = null;

/** Writes all of it: 0 or an errno. */
function writeAll(fd: number, address: number, length: number, offset: number): number {
  for (let written = 0; written < length; ) {
    const count = libc.pwrite(fd, address + written, length - written, offset + written);
    if (count > 0) written += count;
    else {
      const failure = count === 0 ? errno.EIO : lastErrno();
      if (failure !== errno.EINTR) return failure;
    }
  }
  return 0;
}

/** fallocate or ftruncate, repeated when a signal interrupts it. */
function call(invoke: () => number): number {
  for (;;) {
    if (invoke() === 0) return 0;
    const failure = lastErrno();
    if (failure !== errno.EINTR) return failure;
  }
}

function fallocate(fd: number, mode: number, offset: number, length: number): number {
  return call(() => libc.fallocate(fd, mode | linux.FALLOC_KEEP_SIZE, offset, length));
}

/** For file systems without holes. */
function writeZeroes(fd: number, offset: number, length: number): number {
  zeroes ??= mapSlab(zeroesBytes);
  for (let done = 0; done < length; ) {
    const part = Math.min(zeroesBytes, length - done);
    const failure = writeAll(fd, zeroes.address, part, offset + done);
    if (failure !== 0) return failure;
    done += part;
  }
  return 0;
}

function punch(fd: number, offset: number, length: number): number {
  const failure = fallocate(fd, linux.FALLOC_PUNCH_HOLE, offset, length);
  return failure === errno.EOPNOTSUPP ? writeZeroes(fd, offset, length) : failure;
}

/** Zeroes whose blocks are allocated: where the file system can't say so in one call, a punch and an allocation. */
function zeroAllocated(fd: number, offset: number, length: number): number {
  const failure = fallocate(fd, linux.FALLOC_ZERO_RANGE, offset, length);
  if (failure !== errno.EOPNOTSUPP) return failure;
  const punched = punch(fd, offset, length);
  if (punched !== 0) return punched;
  const allocated = fallocate(fd, 0, offset, length);
  return allocated === errno.EOPNOTSUPP ? 0 : allocated;
}

function carryOut(fd: number, code: number, first: number, second: number, third: number): number {
  if (code === operationCode.write) return writeAll(fd, third, second, first);
  if (code === operationCode.punch) return punch(fd, first, second);
  if (code === operationCode.zero) return zeroAllocated(fd, first, second);
  return call(() => libc.ftruncate(fd, first));
}

/** Applies in order up to the first failure. */
function applyMessage(message: Float64Array): ApplyAnswer {
  const job = message[0] ?? 0;
  const fd = message[1] ?? -1;
  for (let at = headNumbers; at < message.length; at += numbersPerOperation) {
    const failure = carryOut(
      fd,
      message[at] ?? -1,
      message[at + 1] ?? 0,
      message[at + 2] ?? 0,
      message[at + 3] ?? 0,
    );
    if (failure !== 0) return [job, failure, (at - headNumbers) / numbersPerOperation];
  }
  return [job, 0, 0];
}

parentPort?.on("message", (message: Float64Array) => {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker's port, not a window
  parentPort?.postMessage(applyMessage(message));
});
