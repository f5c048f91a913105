/*
 * Messages of a stream in its order, from a sequence on, for as long as somebody wants them: by a consumer that keeps nothing,
 * made again from the place reached whenever server, leader or connection are gone. Asks for no more than it hands on. Used by
 * the writer's read() and by followers (jetstream-follower.ts), which judge what they get.
 */
import {
  AckPolicy,
  type Consumer,
  type ConsumerMessages,
  DeliverPolicy,
  type JsMsg,
} from "@nats-io/jetstream";
import { nanos } from "@nats-io/transport-node";
import type { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Clock } from "#shared/ports/clock.ts";
import { apiError } from "./jetstream-errors.ts";
import type { LogStream, StoredMessage } from "./jetstream-stream.ts";

export interface ReadingParts {
  readonly stream: LogStream;
  readonly clock: Clock;
  /** Ends the reading without an error. */
  readonly signal: AbortSignal;
  /** Told of what keeps it from reading on (kind Retry), and null when it goes on. */
  readonly onStalled?: (error: VarveError | null) => void;
}

const idleMs = 30_000;

/** Ends only by the signal or by its caller; everything that passes is waited for. */
export async function* readMessages(
  parts: ReadingParts,
  fromSequence: number,
): AsyncGenerator<StoredMessage, void, undefined> {
  const { signal, stream } = parts;
  let sequence = fromSequence;
  let waitMs: number = limits.jetstreamRetryFirstWaitMs;
  while (!signal.aborted) {
    const reading = new Reading(parts);
    try {
      for await (const message of reading.from(sequence)) {
        const epoch = stream.epochOfSubject(message.subject) ?? 0;
        waitMs = limits.jetstreamRetryFirstWaitMs;
        yield { sequence: message.seq, epoch, body: message.data };
        sequence = message.seq + 1;
      }
    } catch (cause) {
      const error = apiError(stream.name, "follow", cause);
      if (error.kind !== "Retry" && error.kind !== "Internal") throw error;
      parts.onStalled?.(error);
      await pauseReading(parts, waitMs);
      waitMs = Math.min(2 * waitMs, limits.jetstreamRetryWaitMsMax);
    } finally {
      await reading.end();
    }
  }
}

/** One consumer's life. */
class Reading {
  readonly #parts: ReadingParts;
  #consumer: Consumer | null = null;
  #messages: ConsumerMessages | null = null;

  constructor(parts: ReadingParts) {
    this.#parts = parts;
  }

  async *from(sequence: number): AsyncGenerator<JsMsg, void, undefined> {
    const { stream, signal, clock } = this.#parts;
    const manager = await stream.manager();
    const info = await manager.consumers.add(stream.name, {
      ack_policy: AckPolicy.None,
      deliver_policy: DeliverPolicy.StartSequence,
      opt_start_seq: sequence,
      inactive_threshold: nanos(idleMs),
      mem_storage: true,
      num_replicas: 1,
    });
    this.#consumer = stream.client.consumers.getConsumerFromInfo(info);
    this.#parts.onStalled?.(null);
    const stop = (): void => this.#messages?.stop();
    signal.addEventListener("abort", stop);
    try {
      let expected: number | null = null;
      while (!signal.aborted) {
        this.#messages = await this.#consumer.fetch({
          max_messages: limits.jetstreamFetchMessages,
          expires: limits.jetstreamFetchMs,
          idle_heartbeat: limits.jetstreamHeartbeatMs,
        });
        // A request that was lost with a connection ends by itself, late.
        const timer = clock.after(limits.jetstreamFetchMs + 2 * limits.jetstreamHeartbeatMs, stop);
        try {
          for await (const message of this.#messages) {
            if (signal.aborted) return;
            // Lost on the way, or released meanwhile: the next consumer begins there again, and its first message tells.
            if (expected !== null && message.seq !== expected) return;
            yield message;
            expected = message.seq + 1;
          }
        } finally {
          timer.cancel();
        }
      }
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }

  async end(): Promise<void> {
    this.#messages?.stop();
    // Whatever can't be removed now is gone after its idle time.
    await this.#consumer?.delete().catch(() => undefined);
  }
}

/** Waits, but not beyond the signal. */
export function pauseReading(
  { clock, signal }: Pick<ReadingParts, "clock" | "signal">,
  delayMs: number,
): Promise<void> {
  return new Promise((resolve) => {
    const timer = clock.after(delayMs, done);
    function done(): void {
      timer.cancel();
      signal.removeEventListener("abort", done);
      resolve();
    }
    signal.addEventListener("abort", done);
    if (signal.aborted) done();
  });
}
