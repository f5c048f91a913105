/*
 * One consumer's life: messages of a stream in its order, from a sequence on, until the consumer is lost or its caller has enough. Keeps
 * nothing, acknowledges nothing, asks for no more than it hands on. Called by jetstream-stream.ts; jetstream-reader.ts makes the next one.
 */
import {
  AckPolicy,
  type ConsumerInfo,
  type ConsumerMessages,
  DeliverPolicy,
  type JetStreamClient,
  type JetStreamManager,
  type JsMsg,
} from "@nats-io/jetstream";
import { type NatsConnection, nanos, type QueuedIterator, type Status } from "@nats-io/transport-node";
import { limits } from "#shared/domain/limits.ts";
import type { Clock } from "#shared/ports/clock.ts";

export interface ConsumerParts {
  readonly clock: Clock;
  /** Ends it without an error. */
  readonly signal: AbortSignal;
  /** The servers have made it. */
  readonly onBegun: () => void;
  /** Read so much that every hop counts: it shall be on the client's own server. */
  readonly near?: boolean;
}

interface ConsumedStream {
  readonly connection: NatsConnection;
  readonly manager: JetStreamManager;
  readonly client: JetStreamClient;
  readonly name: string;
  /** The client's own server, where that holds the stream. */
  readonly server: string | null;
}

const idleMs = 30_000;
/** Servers put a consumer on any of those that hold the stream: with three, nine of ten are on the wanted one by then. */
const nearTriesMax = 6;

/** Ends where a message is missing: the next consumer begins there again, and its first message tells. */
export async function* consume(
  stream: ConsumedStream,
  sequence: number,
  { clock, signal, onBegun, near = false }: ConsumerParts,
): AsyncGenerator<JsMsg, void, undefined> {
  const info = await addConsumer(stream, sequence, near ? stream.server : null);
  const consumer = stream.client.consumers.getConsumerFromInfo(info);
  let messages: ConsumerMessages | null = null;
  const lost = new AbortController();
  const over = AbortSignal.any([signal, lost.signal]);
  const stop = (): void => messages?.stop();
  over.addEventListener("abort", stop);
  const unwatch = onReconnect(stream.connection, () => lost.abort());
  try {
    onBegun();
    let expected: number | null = null;
    while (!over.aborted) {
      messages = await consumer.fetch({
        max_messages: limits.jetstreamFetchMessages,
        expires: limits.jetstreamFetchMs,
        idle_heartbeat: limits.jetstreamHeartbeatMs,
      });
      // A request that was lost with a connection ends by itself, late.
      const timer = clock.after(limits.jetstreamFetchMs + 2 * limits.jetstreamHeartbeatMs, stop);
      try {
        for await (const message of messages) {
          if (over.aborted) return;
          // Lost on the way, or released meanwhile.
          if (expected !== null && message.seq !== expected) return;
          expected = message.seq + 1;
          yield message;
        }
      } finally {
        timer.cancel();
      }
    }
  } finally {
    over.removeEventListener("abort", stop);
    unwatch();
    stop();
    // Whatever can't be removed now is gone after its idle time; what went with a server is not waited for.
    const removed = consumer.delete().catch(() => undefined);
    if (!lost.signal.aborted) await removed;
  }
}

/**
 * The client has another server now. What it asked the former one for is lost with it, and its own reset asks first whether the consumer is
 * there, and again only after some 10 s where that was not answered (seen: followers 6 to 20 s behind after a server's restart).
 */
function onReconnect(connection: NatsConnection, tell: () => void): () => void {
  // What it gives can be ended, which its type does not say.
  const events = connection.status() as QueuedIterator<Status>;
  void (async () => {
    for await (const { type } of events) if (type === "reconnect") tell();
  })();
  return () => events.stop();
}

/** `server`: the one that it shall be on, as far as a few tries get it there. */
async function addConsumer(
  { manager, name }: ConsumedStream,
  sequence: number,
  server: string | null,
): Promise<ConsumerInfo> {
  for (let tries = 1; ; tries += 1) {
    const info = await manager.consumers.add(name, {
      ack_policy: AckPolicy.None,
      deliver_policy: DeliverPolicy.StartSequence,
      opt_start_seq: sequence,
      inactive_threshold: nanos(idleMs),
      mem_storage: true,
      num_replicas: 1,
    });
    const place = info.cluster?.leader;
    if (server === null || place === undefined || place === server || tries === nearTriesMax) return info;
    // Whatever can't be removed now is gone after its idle time.
    await manager.consumers.delete(name, info.name).catch(() => undefined);
  }
}
