/*
 * Answers gateways and archivers from one replica: where it stands, reads that are at least as new as they ask, in messages of at most
 * limits.replicaReadBytesMax, and which extents are holes.
 * Called by kept-replica.ts for the follower (replica-follower.ts) whose image it reads; the messages are
 * docs/formats/replica-message.md.
 */
import { type ErrorKind, toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import {
  decodeMessage,
  type ExtentRequest,
  encodeMessage,
  encodeWith,
  isBadMessage,
  isHeaderText,
  type ReadRequest,
  type SurveyRequest,
  sealMessage,
} from "#shared/formats/replica-message.ts";
import { messageMemory } from "#shared/memory/message-memory.ts";
import type { ReplicaImage } from "#shared/ports/replica-image.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { ReplicaFollower } from "./replica-follower.ts";
import { answerPeek } from "./replica-peek.ts";

const { extentBytes } = limits;
/** Memory of an answer, which is used again once it was sent. */
export const toSend = (bytes: number): Buffer => messageMemory.takeToSend(bytes);

/** Memory for reads under way; replica-set.ts shares one among all replicas of a node, and another one for copies. */
export class ReadSlots {
  readonly #allocate: () => Slab;
  readonly #slotsMax: number;
  readonly #free: Slab[] = [];
  readonly #waiting: ((slab: Slab) => void)[] = [];
  #made = 0;
  #atOnce: Slab | null = null;

  constructor(
    allocateSlab: (bytes: number) => Slab,
    slotsMax: number,
    slotBytes: number = limits.replicaReadBytesMax,
  ) {
    this.#slotsMax = slotsMax;
    this.#allocate = () => allocateSlab(slotBytes);
  }

  /** For what begins and ends in one go on the event loop. */
  get atOnce(): Slab {
    this.#atOnce ??= this.#allocate();
    return this.#atOnce;
  }

  async take(): Promise<Slab> {
    const slab = this.#free.pop();
    if (slab !== undefined) return slab;
    if (this.#made < this.#slotsMax) {
      this.#made += 1;
      return this.#allocate();
    }
    return await new Promise((resolve) => {
      this.#waiting.push(resolve);
    });
  }

  give(slab: Slab): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free.push(slab);
    else next(slab);
  }
}

/** By what one replica's requests are answered. */
export interface ReadMeans {
  readonly slots: ReadSlots;
  /** For what may wait for the bucket, so that it holds up nobody else. */
  readonly remoteSlots: ReadSlots;
  /** Makes bytes local that a base is to be made of, where that may be. */
  readonly bring: (offset: number, length: number) => Promise<void>;
}

/** Null where the message is not one: then nobody is answered. What needs no waiting is answered at once. */
export function answerRead(
  data: Uint8Array,
  follower: ReplicaFollower,
  means: ReadMeans,
): Promise<Uint8Array | null> | Uint8Array | null {
  const { slots } = means;
  const decoded = decodeMessage(data);
  if (isBadMessage(decoded)) return null;
  const { message, payload } = decoded;
  const { type } = message;
  if (type === "ask") return encodeMessage({ type: "state", report: follower.report() });
  if (type === "grant") return answerGrant(follower);
  if (type === "peek") return answerPeek(message, payload, follower, slots.atOnce);
  const read = type === "read" ? readAtOnce(slots.atOnce, message, follower) : null;
  if (read !== null) return read;
  const isPatient = type === "read" || type === "extent" || type === "survey";
  return isPatient ? answerPatiently(message, follower, means) : null;
}

async function answerPatiently(
  request: ReadRequest | ExtentRequest | SurveyRequest,
  follower: ReplicaFollower,
  { slots: localSlots, remoteSlots, bring }: ReadMeans,
): Promise<Uint8Array> {
  const refuse = (kind: ErrorKind, tag: string, message: string): Uint8Array => {
    const { epoch } = follower;
    return encodeMessage({ type: "refused", kind, tag, message, epoch });
  };
  if (follower.failure !== null) {
    return refuse("Retry", "ReplicaHalted", `the replica halted: ${follower.failure.message}`);
  }
  // What a replay after a crash or a copy has still to write again may be in the image already.
  if (request.type !== "read" && !follower.exact) {
    return refuse("Retry", "ReplicaFilling", "the replica has not caught up yet");
  }
  if (!(await follower.reached(request.leastLsn, request.waitMs))) {
    const { appliedLsn } = follower.image.state();
    return refuse("Retry", "ReplicaBehind", `the replica is at LSN ${appliedLsn}, not ${request.leastLsn}`);
  }
  const isHere = request.type === "survey" || isLocal(follower.image, request.offset, request.length);
  const slots = isHere ? localSlots : remoteSlots;
  const slab = await slots.take();
  try {
    if (request.type === "survey") return survey(request, follower);
    if (request.type === "extent") {
      if (!isHere) await bring(request.offset, request.length);
      return await readForBase(slab, request, follower);
    }
    return await readInto(slab, request, follower);
  } catch (cause) {
    const error = toVarveError(cause, "read");
    return refuse(error.kind, error._tag, error.message);
  } finally {
    slots.give(slab);
  }
}

function answerGrant(follower: ReplicaFollower): Uint8Array {
  const granted = follower.grantReads();
  if (granted !== null && isHeaderText(granted.imagePath)) {
    return encodeMessage({ type: "granted", ...granted });
  }
  const { epoch } = follower;
  const message = "direct reads are not granted now";
  return encodeMessage({ type: "refused", kind: "Retry", tag: "ReadsNotGranted", message, epoch });
}

/** Null: it must wait for the disk, the bucket or an LSN, or be refused. */
function readAtOnce(
  slab: Slab,
  { offset, length, leastLsn }: ReadRequest,
  follower: ReplicaFollower,
): Uint8Array | null {
  const { image } = follower;
  if (follower.failure !== null || !follower.hasReached(leastLsn)) return null;
  return image.readInline(slab, 0, length, offset) === length ? bytesAnswer(slab, length, follower) : null;
}

async function readInto(
  slab: Slab,
  { offset, length }: ReadRequest,
  follower: ReplicaFollower,
): Promise<Uint8Array> {
  await follower.image.read(slab, 0, length, offset);
  return bytesAnswer(slab, length, follower);
}

/** LSN and epoch are looked at behind the read: bytes of an entry that is being written, and of a newer writer, may be among them. */
function bytesAnswer(slab: Slab, length: number, { image, epoch }: ReplicaFollower): Uint8Array {
  const { begunLsn: shownLsn } = image.state();
  const { bytes, payloadAt } = encodeWith({ type: "bytes", shownLsn, epoch }, length, toSend);
  slab.bytes.copy(bytes, payloadAt, 0, length);
  sealMessage(bytes);
  return bytes;
}

export function isLocal({ extents }: Pick<ReplicaImage, "extents">, offset: number, length: number): boolean {
  return extents?.isRangeLocal(offset, length) !== false;
}

/** Bytes for a base are the file's own: what is remote is named by the base before, or not to be had here. */
async function readForBase(
  slab: Slab,
  { offset, length }: ExtentRequest,
  follower: ReplicaFollower,
): Promise<Uint8Array> {
  const { image } = follower;
  const { appliedLsn } = image.state();
  requireLocal(image, offset, length);
  await image.read(slab, 0, length, offset);
  // A rollback meanwhile makes extents remote: what was read may be anything.
  requireLocal(image, offset, length);
  const { begunLsn } = image.state();
  const answer = { type: "extentBytes", appliedLsn, begunLsn } as const;
  const { bytes, payloadAt } = encodeWith(answer, length, toSend);
  slab.bytes.copy(bytes, payloadAt, 0, length);
  sealMessage(bytes);
  return bytes;
}

function requireLocal(image: ReplicaImage, offset: number, length: number): void {
  if (isLocal(image, offset, length)) return;
  throw new VarveError("ExtentNotLocal", "Retry", `bytes at ${offset} are in the bucket only`);
}

/** In one go, on the event loop: no entry begins to be applied meanwhile. */
function survey({ first, count }: SurveyRequest, { image }: ReplicaFollower): Uint8Array {
  const { appliedLsn, begunLsn, sizeBytes } = image.state();
  const { bytes, payloadAt } = encodeWith({ type: "surveyed", appliedLsn, begunLsn }, Math.ceil(count / 8));
  bytes.fill(0, payloadAt);
  const end = Math.min(sizeBytes, (first + count) * extentBytes);
  for (let offset = first * extentBytes; offset < end; ) {
    const run = image.allocation(offset, end - offset, 1)[0];
    const runEnd = run === undefined ? end : run.offset + run.length;
    // An extent that is not a hole from end to end may hold bytes.
    if (run?.allocated !== false || runEnd < Math.min(end, offset + extentBytes)) {
      const extent = offset / extentBytes - first;
      const at = payloadAt + Math.floor(extent / 8);
      bytes.writeUInt8(bytes.readUInt8(at) | (1 << (extent % 8)), at);
      offset += extentBytes;
    } else offset = runEnd >= end ? end : Math.floor(runEnd / extentBytes) * extentBytes;
  }
  sealMessage(bytes);
  return bytes;
}
