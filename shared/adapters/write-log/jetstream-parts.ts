/*
 * What a JetStream log is made of: given by whoever wires it (the gateway's layer, tests), completed with the limits.
 */
import type { StreamConfig } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { limits } from "#shared/domain/limits.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { TakeoverFailpoint } from "#shared/ports/failpoint.ts";
import { checkServers, type ServerSources } from "./jetstream-servers.ts";
import { type StreamSize, settingsMistakes } from "./jetstream-settings.ts";
import { LogStream, type StreamView, type VolumeStream } from "./jetstream-stream.ts";
import { messageEnds } from "./jetstream-tail.ts";
import { type LeaderLinks, LeaderWay } from "./jetstream-way.ts";

export interface JetStreamLogParts {
  readonly connection: NatsConnection;
  /** A writer's own way to the stream's leader; without them all goes over the connection. */
  readonly links?: LeaderLinks;
  readonly clock: Clock;
  readonly random: Random;
  readonly volumeId: string;
  /** 1 or 3; applied at each open. */
  readonly replicas: number;
  /** What the stream may take on each server; applied at each open. */
  readonly logBytesMax?: number;
  /** How the servers' settings are looked up. */
  readonly servers: ServerSources;
  /** Smaller limits for tests. */
  readonly messagesInFlightMax?: number;
  readonly gatherBytes?: number;
  readonly takeoverMs?: number;
  readonly openMs?: number;
  /** For tests that pause a writer in the middle of its takeover. */
  readonly failpoint?: TakeoverFailpoint;
}

export interface JetStreamLogSetup {
  readonly stream: VolumeStream;
  readonly clock: Clock;
  readonly random: Random;
  readonly size: StreamSize;
  readonly messagesInFlightMax: number;
  readonly gatherBytes: number;
  readonly takeoverMs: number;
  readonly openMs: number;
  readonly failpoint: TakeoverFailpoint;
  checkServers(names: readonly string[]): Promise<void>;
  settingsMistakes(found: StreamConfig): readonly string[];
  /** First LSN that the stream still holds; null where it holds none. */
  oldestLsn(view: StreamView): Promise<number | null>;
}

/** What the parts give without servers: the stream and what is asked of its servers come from elsewhere. */
export type StreamParts = Omit<JetStreamLogParts, "connection" | "links" | "servers">;

export function jetStreamLogSetup(parts: JetStreamLogParts): JetStreamLogSetup {
  const { connection, links, clock, volumeId } = parts;
  const way = links === undefined ? null : new LeaderWay(connection, links, clock);
  const stream = new LogStream(connection, volumeId, way);
  return setupOver(stream, parts, async (names) => checkServers(names, parts.servers));
}

export function setupOver(
  stream: VolumeStream,
  parts: StreamParts,
  check: JetStreamLogSetup["checkServers"],
): JetStreamLogSetup {
  return {
    stream,
    clock: parts.clock,
    random: parts.random,
    size: { replicas: parts.replicas, bytesMax: parts.logBytesMax ?? limits.logBytesMaxDefault },
    messagesInFlightMax: parts.messagesInFlightMax ?? limits.jetstreamMessagesInFlightMax,
    gatherBytes: parts.gatherBytes ?? limits.jetstreamGatherBytes,
    takeoverMs: parts.takeoverMs ?? limits.jetstreamTakeoverMs,
    openMs: parts.openMs ?? limits.jetstreamOpenMs,
    failpoint: parts.failpoint ?? (() => undefined),
    checkServers: check,
    settingsMistakes: (found) =>
      settingsMistakes(found, (subject) => stream.epochOfSubject(subject) !== null),
    oldestLsn: async (view) => {
      // Release leaves a batch that counts in front.
      const message = view.messages === 0 ? null : await stream.at(view.firstSequence);
      return message === null ? null : messageEnds(stream.name, message).firstLsn;
    },
  };
}
