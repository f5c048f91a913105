/*
 * Short messages between processes: requests with one answer, and notices to whoever listens. Nothing is kept: what nobody hears is
 * gone, so every protocol above it asks again or says it again (docs/specs/cluster.md). Adapters: adapters/message-bus/nats.ts and
 * memory.ts; one contract suite (test/contract/message-bus.contract.ts) runs on both.
 */

export interface Subscription {
  close(): void;
}

/**
 * Answers a request, or not: null. One that knows the answer at once gives it without a promise. One that fails answers nothing.
 * An answer in memory of messageMemory.takeToSend() is not touched any more: the bus may use that memory again once it is sent.
 */
export type Handler = (data: Uint8Array) => Promise<Uint8Array | null> | Uint8Array | null;

export interface MessageBus {
  /** Says it to everybody who listens now. Never waits, never fails. */
  publish(subject: string, data: Uint8Array): void;
  /**
   * Rejects Retry: BusNobody at once where nobody serves the subject, BusNoAnswer after `timeoutMs`, BusAway without servers.
   * The answer is the caller's, who may give its memory back (memory/message-memory.ts).
   */
  request(subject: string, data: Uint8Array, timeoutMs: number): Promise<Uint8Array>;
  /**
   * `subject` may have `*` for one part. Messages of one sender come in its order. Data is the listener's to keep. A listener that throws
   * stops the process, as a broken invariant does.
   */
  subscribe(subject: string, listener: (data: Uint8Array, subject: string) => void): Subscription;
  /** Answers requests. At most one process serves a subject. */
  serve(subject: string, handler: Handler): Subscription;
}
