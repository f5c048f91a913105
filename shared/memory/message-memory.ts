/*
 * Memory of large NATS messages. Whoever is done with one gives it back; what nobody gives back is collected as any other. Without it
 * each megabyte that a storage node follows leaves five megabytes to the collector. Lent by adapters/nats/message-intake.ts for what comes,
 * by jetstream-queue.ts and the storage node's answers for what goes; given back by jetstream-stream.ts, by whoever has copied an answer
 * to its place, and by adapters/nats/message-transport.ts.
 */

/** Messages from so many bytes on have memory of their own. */
export const largeMessageBytes = 64 * 1024;
/** A fetch of the log is 16 messages, and so many are on their way at most. */
const keptMax = 16;
const stepBytes = 64 * 1024;

export class MessageMemory {
  readonly #free: ArrayBuffer[] = [];
  readonly #lent = new WeakSet<ArrayBufferLike>();
  /** Of these, what goes back when it has been sent. */
  readonly #toSend = new WeakSet<ArrayBufferLike>();

  /** At least so many bytes, of whatever content. */
  take(bytes: number): Buffer<ArrayBuffer> {
    const index = this.#free.findIndex((buffer) => buffer.byteLength >= bytes);
    const buffer =
      index === -1
        ? Buffer.allocUnsafeSlow(Math.ceil(bytes / stepBytes) * stepBytes).buffer
        : (this.#free.splice(index, 1)[0] as ArrayBuffer);
    this.#lent.add(buffer);
    return Buffer.from(buffer, 0, bytes);
  }

  /** For an answer, which nobody needs once it has been sent: then it goes back by itself. Small ones are memory like any other. */
  takeToSend(bytes: number): Buffer<ArrayBuffer> {
    if (bytes < largeMessageBytes) return Buffer.allocUnsafe(bytes);
    const taken = this.take(bytes);
    this.#toSend.add(taken.buffer);
    return taken;
  }

  isToSend({ buffer }: Uint8Array): boolean {
    return this.#toSend.has(buffer);
  }

  /** An answer whose bytes nobody needs once they are in their place. */
  place(answer: Uint8Array, target: Uint8Array, at: number): void {
    target.set(answer, at);
    this.giveBack(answer);
  }

  /** Nobody reads these bytes, or others of the same message, any more. What was not lent here is left alone. */
  giveBack(bytes: Uint8Array): void {
    const { buffer } = bytes;
    if (!this.#lent.delete(buffer)) return;
    this.#toSend.delete(buffer);
    if (this.#free.length === keptMax) this.#free.shift();
    this.#free.push(buffer as ArrayBuffer);
  }
}

/** Of this process. */
export const messageMemory = new MessageMemory();
