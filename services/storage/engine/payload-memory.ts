/*
 * Memory for the payload of batches that were read from the log and wait to be applied: used again, so that following a fast writer leaves
 * next to nothing to the collector. One per replica, owned by replica-follower.ts, which bounds what waits.
 */

const pieceBytes = 1024 * 1024;
/** Smaller ones are not worth a piece. */
const smallBytes = 32 * 1024;
const keptMax = 8;

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
    if (!this.#lent.delete(copy.buffer) || this.#free.length >= keptMax) return;
    this.#free.push(Buffer.from(copy.buffer as ArrayBuffer));
  }
}
