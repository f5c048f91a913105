/*
 * Answers gateways from one replica: where it stands, and reads that are at least as new as they ask, in messages of at most limits.replicaReadBytesMax.
 * Called by kept-replica.ts for the follower (replica-follower.ts) whose image it reads; the messages are
 * docs/formats/replica-message.md.
 */
import { type ErrorKind, toVarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import {
  decodeMessage,
  encodeMessage,
  encodeWith,
  isBadMessage,
  type ReadRequest,
  sealMessage,
} from "#shared/formats/replica-message.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { ReplicaFollower } from "./replica-follower.ts";

/** Memory for reads under way; replica-set.ts shares one among all replicas of a node, and another one for copies. */
export class ReadSlots {
  readonly #allocate: () => Slab;
  readonly #slotsMax: number;
  readonly #free: Slab[] = [];
  readonly #waiting: ((slab: Slab) => void)[] = [];
  #made = 0;

  constructor(allocateSlab: (bytes: number) => Slab, slotsMax: number) {
    this.#slotsMax = slotsMax;
    this.#allocate = () => allocateSlab(limits.replicaReadBytesMax);
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

/** Null where the message is not one: then nobody is answered. */
export async function answerRead(
  data: Uint8Array,
  follower: ReplicaFollower,
  slots: ReadSlots,
): Promise<Uint8Array | null> {
  const decoded = decodeMessage(data);
  if (isBadMessage(decoded)) return null;
  if (decoded.message.type === "ask") return encodeMessage({ type: "state", report: follower.report() });
  if (decoded.message.type !== "read") return null;
  const request = decoded.message;
  const refuse = (kind: ErrorKind, tag: string, message: string): Uint8Array => {
    const { epoch } = follower.image.logPosition();
    return encodeMessage({ type: "refused", kind, tag, message, epoch });
  };
  if (follower.failure !== null) {
    return refuse("Retry", "ReplicaHalted", `the replica halted: ${follower.failure.message}`);
  }
  if (!(await follower.reached(request.leastLsn, request.waitMs))) {
    const { appliedLsn } = follower.image.state();
    return refuse("Retry", "ReplicaBehind", `the replica is at LSN ${appliedLsn}, not ${request.leastLsn}`);
  }
  const slab = await slots.take();
  try {
    return await readInto(slab, request, follower);
  } catch (cause) {
    const error = toVarveError(cause, "read");
    return refuse(error.kind, error._tag, error.message);
  } finally {
    slots.give(slab);
  }
}

/** The place is noted before the bytes are read: they are at least as new as it says. */
async function readInto(
  slab: Slab,
  { offset, length }: ReadRequest,
  follower: ReplicaFollower,
): Promise<Uint8Array> {
  const { image } = follower;
  const { epoch, appliedLsn } = image.logPosition();
  const got = image.readInline(slab, 0, length, offset);
  if (got !== length) await image.read(slab, 0, length, offset);
  // The epoch is looked at again behind the read: a newer writer's bytes may be among them.
  const newest = Math.max(epoch, image.logPosition().epoch);
  const { bytes, payloadAt } = encodeWith({ type: "bytes", appliedLsn, epoch: newest }, length);
  slab.bytes.copy(bytes, payloadAt, 0, length);
  sealMessage(bytes);
  return bytes;
}
