/*
 * Gives the memory of large buffers back at once. V8 counts what lies outside of its heap, and collects only when 64 MiB more of
 * it have come, which stops the event loop for 10 to 40 ms (docs/specs/history.md#memory). Called by adapters/history/lent-memory.ts.
 */

/** Smaller ones may share a pool with others, and are not worth it. */
const releasedBytesMin = 128 * 1024;

/**
 * For the only owner of the memory that these bytes begin, who is done with all of it: every view of it is empty afterwards. Does nothing to
 * what is small, or stands behind something else.
 */
export function releaseMemory(bytes: Buffer): void {
  const { buffer } = bytes;
  if (!(buffer instanceof ArrayBuffer) || bytes.byteOffset !== 0 || buffer.byteLength < releasedBytesMin)
    return;
  buffer.transfer(0);
}
