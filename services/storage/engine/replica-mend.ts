/*
 * Puts an extent of a replica right from another one whose bytes are proven by their checksum: the api names what the extent had at an LSN
 * (services/api/engine/cluster-scrub.ts), the peer's bytes must have just that, and no entry may have touched the extent here since. Called
 * by replica-answers.ts; the write is the image's (adapters/replica-image/mended-extents.ts). Rules: docs/specs/cluster.md#scrub.
 */
import { replicaCopySubject } from "#shared/domain/cluster-subjects.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { extentSumOf, sumText } from "#shared/formats/extent-sum.ts";
import {
  decodeMessage,
  encodeMessage,
  isBadMessage,
  type MendRequest,
  type ReplicaMessage,
} from "#shared/formats/replica-message.ts";
import { messageMemory } from "#shared/memory/message-memory.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { SpaceAdmission } from "#shared/ports/space-admission.ts";
import type { ReplicaFollower } from "./replica-follower.ts";
import type { ReadSlots } from "./replica-reads.ts";

export interface MendMeans {
  readonly bus: Pick<MessageBus, "request">;
  readonly record: { readonly id: string };
  readonly pool: { readonly replicas: { readonly admission: SpaceAdmission } };
  /** Of mendSlotBytes each. */
  readonly mendSlots: ReadSlots;
}

const { extentBytes } = limits;
const askMs = 5000;
const behindWaitMs = 1000;

/** What one mend works with: the right bytes, and the present ones. */
export const mendSlotBytes = 2 * extentBytes;

export async function answerMend(
  request: MendRequest,
  follower: ReplicaFollower,
  means: MendMeans,
): Promise<Uint8Array> {
  const slab = await means.mendSlots.take();
  try {
    const isMended = await mended(request, follower, means, slab);
    return encodeMessage({ type: "mended", isMended });
  } catch (cause) {
    const { kind, _tag, message } = toVarveError(cause, "mend");
    return encodeMessage({ type: "refused", kind, tag: _tag, message, epoch: 0 });
  } finally {
    means.mendSlots.give(slab);
  }
}

async function mended(
  { extent, lsn, sum, peer }: MendRequest,
  follower: ReplicaFollower,
  { bus, record, pool }: MendMeans,
  slab: Slab,
): Promise<boolean> {
  const { image } = follower;
  const mending = image.extents?.mending;
  // Before it has caught up the file may hold bytes of entries that are applied again.
  if (mending === undefined || follower.failure !== null || !follower.exact) throw notReady();
  if (!(await follower.reached(lsn, behindWaitMs))) throw notReady();
  const offset = extent * extentBytes;
  const length = Math.min(extentBytes, image.state().sizeBytes - offset);
  if (length <= 0 || mending.touchedLsn(extent) > lsn) return false;
  const [right, scratch] = [slabPart(slab, 0), slabPart(slab, 1)];
  await fetchRange(bus, { volumeId: record.id, peer, offset, length, leastLsn: lsn }, right);
  if (sumText(extentSumOf(right.bytes.subarray(0, length))) !== sum) return false;
  const isMended = await withRoom(pool.replicas.admission, () => mending.mend(extent, lsn, right, scratch));
  if (isMended) await mending.record();
  return isMended;
}

/** Blocks that were holes take room. */
export async function withRoom<T>(admission: SpaceAdmission, work: () => Promise<T>): Promise<T> {
  const refusal = admission.refuse(extentBytes);
  if (refusal !== null) throw refusal;
  admission.admit(extentBytes);
  try {
    const result = await work();
    admission.settle(extentBytes);
    return result;
  } catch (cause) {
    admission.withdraw(extentBytes);
    throw cause;
  }
}

/** One extent's part of a larger slab. */
export function slabPart(slab: Slab, index: number): Slab {
  const start = index * extentBytes;
  return { bytes: slab.bytes.subarray(start, start + extentBytes), address: slab.address + start };
}

interface PeerRange {
  readonly volumeId: string;
  readonly peer: string;
  readonly offset: number;
  readonly length: number;
  readonly leastLsn: number;
}

async function fetchRange(bus: MendMeans["bus"], range: PeerRange, to: Slab): Promise<void> {
  const { offset, length, leastLsn } = range;
  for (let done = 0; done < length; ) {
    const request = { type: "copy", offset: offset + done, length: length - done, leastLsn } as const;
    const { message, payload } = await askPeer(bus, range, request);
    if (message.type !== "piece" || message.skippedBytes + payload.length > length - done) throw notReady();
    to.bytes.fill(0, done, done + message.skippedBytes);
    messageMemory.place(payload, to.bytes, done + message.skippedBytes);
    done += message.skippedBytes + payload.length;
    if (message.skippedBytes + payload.length === 0) throw notReady();
  }
}

export async function askPeer(
  bus: MendMeans["bus"],
  { volumeId, peer }: Pick<PeerRange, "volumeId" | "peer">,
  request: ReplicaMessage,
): Promise<{ readonly message: ReplicaMessage; readonly payload: Buffer }> {
  const data = await bus.request(replicaCopySubject(volumeId, peer), encodeMessage(request), askMs);
  const answer = decodeMessage(data);
  if (isBadMessage(answer)) throw new VarveError("MendAnswerError", "Retry", `${peer}: ${answer.detail}`);
  const { message } = answer;
  if (message.type !== "refused") return answer;
  throw new VarveError(message.tag, message.kind, `${peer}: ${message.message}`);
}

function notReady(): VarveError {
  return new VarveError("MendNotNow", "Retry", "the replica, or the one it is mended from, is not that far", {
    hint: "Scrub again when varve replica list says that both follow.",
  });
}
