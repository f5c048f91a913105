/*
 * Messages of a stream in its order, from a sequence on, for as long as somebody wants them: by a consumer (jetstream-consumer.ts) that is
 * made again from the place reached whenever server, leader or connection are gone. Asks for no more than it hands on. Used by
 * the writer's read() and by followers (jetstream-follower.ts), which judge what they get.
 */
import type { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Clock } from "#shared/ports/clock.ts";
import { apiError } from "./jetstream-errors.ts";
import type { StoredMessage, VolumeStream } from "./jetstream-stream.ts";

export interface ReadingParts {
  readonly stream: VolumeStream;
  readonly clock: Clock;
  /** Ends the reading without an error. */
  readonly signal: AbortSignal;
  /** Told of what keeps it from reading on (kind Retry), and null when it goes on. */
  readonly onStalled?: (error: VarveError | null) => void;
  /** See ConsumerParts. */
  readonly near?: boolean;
  /** So many messages are asked for one by one before a consumer is made, which is three requests and sends ahead. */
  readonly singly?: number;
}

/**
 * A consumer is made by the leader of all servers, which may be away while the stream's own is there: an election takes 4 to 9 s, and each
 * attempt costs a second in which nothing is read. So the messages read one by one in between are twice as many each time, up to:
 */
const singlyMeanwhile = 256;
const singlyMeanwhileMax = 2048;

/** Ends only by the signal or by its caller; everything that passes is waited for. */
export async function* readMessages(
  parts: ReadingParts,
  fromSequence: number,
): AsyncGenerator<StoredMessage, void, undefined> {
  const { signal, stream, near = false } = parts;
  let sequence = fromSequence;
  let singly = parts.singly ?? 0;
  let meanwhile = singlyMeanwhile;
  let waitMs: number = limits.jetstreamRetryFirstWaitMs;
  while (!signal.aborted) {
    const consumer = { clock: parts.clock, signal, near, onBegun: () => parts.onStalled?.(null) };
    try {
      const single = singly > 0 ? await stream.at(sequence) : null;
      singly = single === null ? 0 : singly - 1;
      if (single !== null) {
        parts.onStalled?.(null);
        yield single;
        sequence += 1;
        continue;
      }
      for await (const message of stream.messagesFrom(sequence, consumer)) {
        waitMs = limits.jetstreamRetryFirstWaitMs;
        meanwhile = singlyMeanwhile;
        yield message;
        sequence = message.sequence + 1;
      }
    } catch (cause) {
      const error = apiError(stream.name, "follow", cause);
      if (error.kind !== "Retry" && error.kind !== "Internal") throw error;
      parts.onStalled?.(error);
      singly = meanwhile;
      meanwhile = Math.min(2 * meanwhile, singlyMeanwhileMax);
      await pauseReading(parts, waitMs);
      waitMs = Math.min(2 * waitMs, limits.jetstreamRetryWaitMsMax);
    }
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
