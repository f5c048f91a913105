/*
 * Memory for the payload of batches that were read from the log and wait to be applied: used again, so that following a fast writer leaves
 * next to nothing to the collector. What is too much is freed at once: pieces left to the collector made V8 mark the whole heap three times
 * a second, 30 to 40 ms each. One for all replicas of the process, which are seldom busy at once; replica-follower.ts bounds what waits.
 */

const pieceBytes = 1024 * 1024;
/** Smaller ones are not worth a piece. */
const smallBytes = 32 * 1024;
/** As much as one busy replica lets wait: a piece that is not kept costs the next one a page fault for each 4 KiB. */
const keptMax = 32;

export class PayloadMemory {
  readonly #free: Buffer<ArrayBuffer>[] = [];
  readonly #lent = new WeakSet<ArrayBufferLike>();

  /** The same bytes, for as long as they are not given back. */
  copyOf(payload: Uint8Array): Buffer {
    if (payload.byteLength < smallBytes || payload.byteLength > pieceBytes) return Buffer.from(payload);
    const piece = this.#free.pop() ?? Buffer.allocUnsafeSlow(pieceBytes);
    this.#lent.add(piece.buffer);
    piece.set(payload);
    return piece.subarray(0, payload.byteLength);
  }

  /** Nobody reads that copy any more. What is not lent now is left alone, so that a piece is never lent twice. */
  giveBack(copy: Uint8Array): void {
    const { buffer } = copy;
    if (!(buffer instanceof ArrayBuffer) || !this.#lent.delete(buffer)) return;
    if (this.#free.length < keptMax) this.#free.push(Buffer.from(buffer));
    else buffer.transfer(0);
  }
}

/** Of this process. */
export const payloadMemory = new PayloadMemory();
