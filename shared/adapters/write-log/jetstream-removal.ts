/*
 * Removes the stream of a volume that was deleted, when its images are gone. Called by the api process (services/api/cluster-layer.ts).
 */
import { JetStreamApiError, jetstreamManager } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { limits } from "#shared/domain/limits.ts";
import { apiError } from "./jetstream-errors.ts";

/** JetStream's code for a stream that is not there. */
const noStream = 10_059;

/** Nothing happens where there is none: a volume that no gateway ever opened has no log. */
export async function removeLogStream(connection: NatsConnection, volumeId: string): Promise<void> {
  const name = `varve-log-${volumeId}`;
  try {
    const manager = await jetstreamManager(connection, {
      timeout: limits.jetstreamAnswerMs,
      checkAPI: false,
    });
    await manager.streams.delete(name);
  } catch (cause) {
    if (cause instanceof JetStreamApiError && cause.code === noStream) return;
    throw apiError(name, "remove the stream", cause);
  }
}
