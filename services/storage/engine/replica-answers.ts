/*
 * Answers everything that is asked of one kept replica: reads and bases by its follower, copies and comparisons beside it, fills,
 * evictions and repairs by whoever does them. Served by kept-replica.ts; the messages are docs/formats/replica-message.md.
 */
import { type ErrorKind, toVarveError, type VarveError } from "#shared/domain/errors.ts";
import type { FillOrigin, ReplicaReport } from "#shared/domain/replica-report.ts";
import {
  decodeMessage,
  type EvictColdRequest,
  encodeMessage,
  type FillRequest,
  isBadMessage,
  type ScrubRequest,
} from "#shared/formats/replica-message.ts";
import type { KeptExtents } from "./kept-extents.ts";
import { answerCopy } from "./replica-copies.ts";
import type { ReplicaFollower } from "./replica-follower.ts";
import { answerMend, type MendMeans } from "./replica-mend.ts";
import { answerReach, type ReachParts } from "./replica-reach.ts";
import { answerRead, type ReadMeans, type ReadSlots } from "./replica-reads.ts";
import { noBucket } from "./replica-scrub.ts";

/** Of a kept-replica.ts. */
export interface AnsweringReplica {
  /** Null: it is not open. */
  readonly follower: ReplicaFollower | null;
  readonly extents: KeptExtents | null;
  readonly isFilling: boolean;
  /** Why it is neither open nor filled. */
  readonly failure: VarveError | null;
  report(): ReplicaReport;
  refill(from: FillOrigin | null): Promise<void>;
}

export interface AnswerMeans extends ReadMeans, ReachParts, MendMeans {
  readonly record: MendMeans["record"] & ReachParts["record"];
  readonly copySlots: ReadSlots;
}

/** Null: nobody is answered. */
export function answerReadRequest(
  data: Uint8Array,
  replica: AnsweringReplica,
  means: ReadMeans,
): Promise<Uint8Array | null> | Uint8Array | null {
  if (replica.follower !== null) return answerRead(data, replica.follower, means);
  const decoded = decodeMessage(data);
  if (isBadMessage(decoded)) return null;
  if (decoded.message.type === "ask") return stateOf(replica);
  return decoded.message.type === "read" ? notOpen(replica) : null;
}

/** Null: nobody is answered. */
export async function answerCopyRequest(
  data: Uint8Array,
  replica: AnsweringReplica,
  means: AnswerMeans,
): Promise<Uint8Array | null> {
  const decoded = decodeMessage(data);
  if (isBadMessage(decoded)) return null;
  const { message } = decoded;
  const { copySlots, remoteSlots } = means;
  if (message.type === "reach") return await answerReach(message.lsn, means);
  if (message.type === "repair") return await answerRepair(replica, message.from);
  if (replica.follower === null) return notOpen(replica);
  if (message.type === "scrub") return answerScrub(replica, message, means.node);
  if (message.type === "mend") return await answerMend(message, replica.follower, means);
  if (message.type === "fill" || message.type === "evict") return answerExtents(replica, message);
  return await answerCopy(message, replica.follower, { slots: copySlots, remoteSlots });
}

function answerExtents(replica: AnsweringReplica, message: FillRequest | EvictColdRequest): Uint8Array {
  const { extents } = replica;
  if (message.type === "fill") {
    extents?.fill();
    return stateOf(replica);
  }
  try {
    return encodeMessage(extents?.evict(message) ?? { type: "evicted", extents: 0, isDone: true });
  } catch (cause) {
    return refusalOf(cause, "evict");
  }
}

function answerScrub(
  { follower, extents }: AnsweringReplica,
  message: ScrubRequest,
  node: string,
): Uint8Array {
  const failure = follower?.failure ?? null;
  if (failure !== null) return refusal("Retry", "ReplicaHalted", `the replica halted: ${failure.message}`);
  try {
    if (extents === null) throw noBucket(node);
    return extents.scrub.answer(message);
  } catch (cause) {
    return refusalOf(cause, "scrub");
  }
}

async function answerRepair(replica: AnsweringReplica, from: FillOrigin | null): Promise<Uint8Array> {
  try {
    await replica.refill(from);
    return stateOf(replica);
  } catch (cause) {
    return refusalOf(cause, "repair");
  }
}

function stateOf(replica: AnsweringReplica): Uint8Array {
  return encodeMessage({ type: "state", report: replica.report() });
}

function notOpen({ failure, isFilling }: AnsweringReplica): Uint8Array {
  if (failure === null || isFilling) return refusal("Retry", "ReplicaFilling", "the replica is being filled");
  return refusal("Retry", "ReplicaHalted", `the replica is not open: ${failure.message}`);
}

function refusalOf(cause: unknown, doing: string): Uint8Array {
  const { kind, _tag, message } = toVarveError(cause, doing);
  return refusal(kind, _tag, message);
}

function refusal(kind: ErrorKind, tag: string, message: string): Uint8Array {
  return encodeMessage({ type: "refused", kind, tag, message, epoch: 0 });
}
