/*
 * One storage node in a cluster's scrub: what is known of its replica, and how it is asked. Shared by cluster-scrub.ts and scrub-peers.ts.
 */
import { replicaCopySubject } from "#shared/domain/cluster-subjects.ts";
import { VarveError } from "#shared/domain/errors.ts";
import {
  decodeMessage,
  encodeMessage,
  isBadMessage,
  type ReplicaMessage,
} from "#shared/formats/replica-message.ts";
import type { ScrubbedReplica } from "#shared/ports/bucket-administration.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { ReplicaView } from "#shared/ports/cluster-administration.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";

export type OnProgress = (doneBytes: number, totalBytes: number) => void;

/** One replica on its way through a scrub. */
export interface ScrubbedNode {
  readonly node: string;
  against: ScrubbedReplica["against"];
  extents: number;
  compared: number;
  remote: number;
  bytes: number;
  busy: number;
  busyExtents: readonly number[];
  reason: string;
}

/** Empty: it can be scrubbed. */
export function notReady({ report }: Pick<ReplicaView, "report">): string {
  if (report === null) return "its node is silent";
  const { condition, reason } = report;
  if (condition === "following" || condition === "lagging") return "";
  return `its replica is ${condition}${reason === "" ? "" : `: ${reason}`}`;
}

/** Asks a node about its replica; what it refuses is thrown with its name. */
export async function ask(
  bus: Pick<MessageBus, "request">,
  volumeId: string,
  node: string,
  request: ReplicaMessage,
  waitMs: number,
): Promise<{ readonly message: ReplicaMessage; readonly payload: Buffer }> {
  const answer = decodeMessage(
    await bus.request(replicaCopySubject(volumeId, node), encodeMessage(request), waitMs),
  );
  if (isBadMessage(answer)) throw new VarveError("ScrubAnswerError", "Retry", answer.detail);
  const { message } = answer;
  if (message.type !== "refused") return answer;
  throw new VarveError(message.tag, message.kind, message.message, { fields: { node } });
}

export function pause(clock: Clock, ms: number): Promise<void> {
  return new Promise((resolve) => {
    clock.after(ms, resolve);
  });
}
