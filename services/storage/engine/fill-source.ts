/*
 * Where the bytes of a replica that is filled come from: other nodes (fill-from-peers.ts) or the bucket (fill-from-bucket.ts). Read by
 * fill-copy.ts, one attempt with one source; rules in docs/specs/replica-fill.md.
 */
import { VarveError } from "#shared/domain/errors.ts";
import type { LogEnd } from "#shared/ports/log-follower.ts";
import type { Slab } from "#shared/ports/slab.ts";

/** Where in the log a copy begins: what its checkpoint says, and what is applied behind it. */
export interface FillStart {
  /** Empty: nothing was applied, the log is followed from entry 1. */
  readonly line: string;
  readonly epoch: number;
  readonly appliedLsn: number;
  /** Of the batch at appliedLsn. */
  readonly checksum: bigint;
  /** 0: not known. */
  readonly sequence: number;
  readonly sizeBytes: number;
}

/** Of a range, from its beginning: a hole, then data. */
export interface FillPiece {
  readonly skippedBytes: number;
  /** In the slab, from its beginning; 0: all of the range is a hole. */
  readonly dataBytes: number;
  /** Parts of entries up to here may be among the bytes. */
  readonly begunLsn: number;
}

export interface FillLog {
  end(): Promise<Pick<LogEnd, "oldestLsn" | "line"> | null>;
}

export interface FillSource {
  /** For the operator. */
  readonly name: string;
  /** Who is read from: one piece at a time each. */
  readonly workers: readonly string[];
  readonly pieceBytesMax: number;
  /** Nothing was written yet. Rejects where a copy can't begin now. */
  begin(): Promise<FillStart>;
  /**
   * At most a slab full. What it rejects with is tried again, by whichever worker, unless its kind is Corrupt, Invalid or Full: those
   * end the copy. The slab is not touched any more then.
   */
  read(worker: string, offset: number, length: number, slab: Slab): Promise<FillPiece>;
  /** Never rejects; nothing is read any more. */
  end(): Promise<void>;
}

export function fillStopped(): VarveError {
  return new VarveError("FillStopped", "Retry", "the fill was stopped");
}

export function noRoom(wantedBytes: number, roomBytes: number): VarveError {
  return new VarveError(
    "FillNoRoom",
    "Full",
    `a copy of the replica takes ${wantedBytes} bytes, and there are ${Math.floor(roomBytes)}`,
    {
      hint: "Free space on this node's pool, or move the replica: varve replica move.",
      fields: { wantedBytes, roomBytes },
    },
  );
}

/** A full disk has another figure at each attempt, and is still the same full disk. */
export function isToldAlready(error: VarveError, before: VarveError | null): boolean {
  if (before === null) return false;
  return error._tag === "FillNoRoom" ? before._tag === error._tag : error.message === before.message;
}
