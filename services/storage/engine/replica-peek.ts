/*
 * Answers a gateway that asks for several short reads in one message: those whose bytes are in memory, at once, and which they are. It
 * waits for nothing, so that no read is held up by another one's disk, bucket or LSN; the gateway asks for the rest one by one.
 * Called by replica-reads.ts for the follower whose image it reads; the messages are docs/formats/replica-message.md.
 */
import { readPeekRanges } from "#shared/formats/peek-ranges.ts";
import { encodeMessage, encodeWith, type PeekRequest, sealMessage } from "#shared/formats/replica-message.ts";
import type { LocalReplica } from "#shared/ports/replica-image.ts";
import type { Slab } from "#shared/ports/slab.ts";

/** Of a replica-follower.ts. */
export interface PeekedReplica {
  readonly image: Pick<LocalReplica, "state" | "readInline">;
  /** The newest of those whose bytes may be in the image. */
  readonly epoch: number;
  readonly failure: unknown;
  hasReached(lsn: number): boolean;
}

/** Null: its ranges are none. `slab` holds limits.replicaReadBytesMax. In one go, on the event loop. */
export function answerPeek(
  { leastLsn }: PeekRequest,
  payload: Buffer,
  follower: PeekedReplica,
  slab: Slab,
): Uint8Array | null {
  const ranges = readPeekRanges(payload);
  if (ranges === null) return null;
  const { image, epoch } = follower;
  const { begunLsn: shownLsn } = image.state();
  if (follower.failure !== null || !follower.hasReached(leastLsn))
    return encodeMessage({ type: "peeked", shownLsn, epoch, found: 0 });
  let found = 0;
  let end = 0;
  for (const [index, { offset, length }] of ranges.entries()) {
    if (image.readInline(slab, end, length, offset) !== length) continue;
    found += 2 ** index;
    end += length;
  }
  const { bytes, payloadAt } = encodeWith({ type: "peeked", shownLsn, epoch, found }, end);
  slab.bytes.copy(bytes, payloadAt, 0, end);
  sealMessage(bytes);
  return bytes;
}
