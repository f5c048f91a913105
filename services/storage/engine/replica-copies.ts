/*
 * Answers other nodes that copy a replica, and the api that compares replicas: where it stands, pieces of its image with the LSNs they
 * were read between, a hold at one LSN, checksums of extents. Made by kept-replica.ts beside the follower whose image it reads; the
 * messages are docs/formats/replica-message.md, the rules docs/specs/replica-fill.md.
 */
import { type ErrorKind, toVarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { ExtentSum } from "#shared/formats/extent-sum.ts";
import {
  type CopyRequest,
  encodeMessage,
  encodeWith,
  type HashRequest,
  type HoldRequest,
  type ReplicaMessage,
  sealMessage,
} from "#shared/formats/replica-message.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { ReplicaFollower } from "./replica-follower.ts";
import { isLocal, type ReadMeans, type ReadSlots, toSend } from "./replica-reads.ts";

const behindWaitMs = 1000;

/** Null: it is no request of these. */
export async function answerCopy(
  request: ReplicaMessage,
  follower: ReplicaFollower,
  { slots, remoteSlots }: Pick<ReadMeans, "slots" | "remoteSlots">,
): Promise<Uint8Array | null> {
  const { image } = follower;
  const refuse = (kind: ErrorKind, tag: string, message: string): Uint8Array =>
    encodeMessage({ type: "refused", kind, tag, message, epoch: image.logPosition().epoch });
  if (!["where", "copy", "hold", "hash"].includes(request.type)) return null;
  if (follower.failure !== null) {
    return refuse("Retry", "ReplicaHalted", `the replica halted: ${follower.failure.message}`);
  }
  // What a replay after a crash has still to write again may be in the image already.
  if (!follower.exact) return refuse("Retry", "ReplicaFilling", "the replica has not caught up yet");
  try {
    if (request.type === "where") return whereItStands(follower);
    if (request.type === "hold") return await held(request, follower);
    if (request.type === "hash")
      return await withSlab(slots, async (slab) => hashes(slab, request, follower));
    if (request.type !== "copy") return null;
    if (!(await follower.reached(request.leastLsn, behindWaitMs))) {
      const { appliedLsn } = image.state();
      return refuse("Retry", "ReplicaBehind", `the replica is at LSN ${appliedLsn}, not ${request.leastLsn}`);
    }
    const isHere = isLocal(image, request.offset, request.length);
    return await withSlab(isHere ? slots : remoteSlots, async (slab) => piece(slab, request, follower));
  } catch (cause) {
    const error = toVarveError(cause, "copy");
    return refuse(error.kind, error._tag, error.message);
  }
}

async function withSlab<T>(slots: ReadSlots, work: (slab: Slab) => Promise<T>): Promise<T> {
  const slab = await slots.take();
  try {
    return await work(slab);
  } finally {
    slots.give(slab);
  }
}

function whereItStands({ image }: ReplicaFollower): Uint8Array {
  const position = image.logPosition();
  return encodeMessage({ type: "place", ...position, sizeBytes: image.state().sizeBytes });
}

/** The place is noted before anything is read; what has begun, behind it. */
async function piece(
  slab: Slab,
  { offset, length }: CopyRequest,
  { image }: ReplicaFollower,
): Promise<Uint8Array> {
  const { appliedLsn } = image.state();
  let at = offset;
  const end = offset + length;
  let dataBytes = 0;
  const [first, second] = image.allocation(offset, length, 2);
  const data = first?.allocated === true ? first : second?.allocated === true ? second : undefined;
  if (data !== undefined) {
    at = data.offset;
    dataBytes = Math.min(data.length, end - at, limits.replicaReadBytesMax);
    await image.read(slab, 0, dataBytes, at);
  } else at = end;
  const { begunLsn } = image.state();
  const answer = { type: "piece", skippedBytes: at - offset, appliedLsn, begunLsn } as const;
  const { bytes, payloadAt } = encodeWith(answer, dataBytes, toSend);
  slab.bytes.copy(bytes, payloadAt, 0, dataBytes);
  if (dataBytes > 0) sealMessage(bytes);
  return bytes;
}

async function held({ lsn, holdMs }: HoldRequest, follower: ReplicaFollower): Promise<Uint8Array> {
  const appliedLsn = await follower.hold(lsn, holdMs);
  return encodeMessage({ type: "held", appliedLsn });
}

/**
 * Of each extent: the checksum of the checksums of its parts. A hole counts as the zeroes that it reads as; 0 stands for one whose bytes are
 * not all in this file: it is not fetched only to be compared.
 */
async function hashes(
  slab: Slab,
  { offset, extents }: HashRequest,
  { image }: ReplicaFollower,
): Promise<Uint8Array> {
  const { appliedLsn, sizeBytes } = image.state();
  const { bytes, payloadAt } = encodeWith({ type: "hashes", appliedLsn }, extents * 8);
  for (let index = 0; index < extents; index += 1) {
    const start = Math.min(sizeBytes, offset + index * limits.extentBytes);
    const end = Math.min(sizeBytes, start + limits.extentBytes);
    if (!isLocal(image, start, end - start)) {
      bytes.writeBigUInt64LE(0n, payloadAt + index * 8);
      continue;
    }
    const sum = new ExtentSum();
    for (let at = start; at < end; at += limits.replicaReadBytesMax) {
      const length = Math.min(limits.replicaReadBytesMax, end - at);
      const run = image.allocation(at, length, 1)[0];
      if (run !== undefined && !run.allocated && run.length >= length) slab.bytes.fill(0, 0, length);
      else await image.read(slab, 0, length, at);
      sum.add(slab.bytes.subarray(0, length));
    }
    bytes.writeBigUInt64LE(sum.value(), payloadAt + index * 8);
  }
  sealMessage(bytes);
  return bytes;
}
