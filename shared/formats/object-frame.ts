/*
 * A frame: a piece of a segment's record stream or of a chunk's content that is compressed and checked by itself, so that a
 * cold read fetches 256 KiB and not the whole object (docs/formats/segment.md#frames, docs/formats/chunk.md#frames).
 * segment-object.ts and chunk-object.ts pack them; point sources and fills open them from ranged GETs.
 */
import { type BadBytes, bad } from "./binary-fields.ts";
import { checksumOf } from "./checksum.ts";
import type { ObjectRoom } from "./object-room.ts";
import { decompress, decompressLater, type ObjectFault } from "./sealed-object.ts";

/** Numbers as they stand in objects. Never reused. */
export const frameCoding = { zero: 0, stored: 1, zstd: 2 } as const;
export type FrameCoding = (typeof frameCoding)[keyof typeof frameCoding];

export interface ObjectFrame {
  readonly number: number;
  /** Place of its first raw byte in the record stream or in the chunk's content. */
  readonly place: number;
  readonly rawBytes: number;
  readonly coding: FrameCoding;
  /** Where its stored bytes stand in the object: [objectOffset, objectOffset + storedBytes). */
  readonly objectOffset: number;
  readonly storedBytes: number;
  /** xxh64 of the stored bytes; 0n for a frame of zeroes, which has none. */
  readonly checksum: bigint;
}

/** Adds a frame to the object in `room`: zstd where that is shorter, else the bytes as they are. Level 0 stores without trying. */
export function packFrame(
  room: ObjectRoom,
  raw: Buffer,
  level: number,
): Pick<ObjectFrame, "coding" | "objectOffset" | "storedBytes" | "checksum"> {
  const objectOffset = room.bytes;
  const { bytes, isCompressed } = room.add(raw, level);
  return {
    coding: isCompressed ? frameCoding.zstd : frameCoding.stored,
    objectOffset,
    storedBytes: bytes.length,
    checksum: checksumOf(bytes),
  };
}

/** The raw bytes of a frame from its stored ones. A stored frame's result is a view of them. */
export function openFrame(stored: Buffer, frame: ObjectFrame): Buffer | BadBytes<ObjectFault> {
  return (
    plainFrame(stored, frame) ??
    opened(frame, decompress(stored.subarray(0, frame.storedBytes), frame.rawBytes))
  );
}

/** The same with decompression on the thread pool, for callers on the event loop. */
export async function openFrameLater(
  stored: Buffer,
  frame: ObjectFrame,
): Promise<Buffer | BadBytes<ObjectFault>> {
  return (
    plainFrame(stored, frame) ??
    opened(frame, await decompressLater(stored.subarray(0, frame.storedBytes), frame.rawBytes))
  );
}

/** What is wrong with a frame in itself, for both directions. */
export function frameMistake(frame: ObjectFrame): string | null {
  const { number, coding, storedBytes, rawBytes, checksum } = frame;
  switch (coding) {
    case frameCoding.zero:
      return storedBytes === 0 && checksum === 0n ? null : `frame ${number} of zeroes has bytes`;
    case frameCoding.stored:
      return storedBytes === rawBytes ? null : `frame ${number} stores ${storedBytes} of ${rawBytes} bytes`;
    case frameCoding.zstd:
      return storedBytes > 0 && storedBytes < rawBytes
        ? null
        : `frame ${number} takes ${storedBytes} bytes for ${rawBytes}`;
    default:
      return `frame ${number} has coding ${String(coding)}`;
  }
}

/** The checked bytes where nothing is to decompress; null for an intact zstd frame. */
function plainFrame(stored: Buffer, frame: ObjectFrame): Buffer | BadBytes<ObjectFault> | null {
  const { number, coding, storedBytes, rawBytes } = frame;
  if (coding === frameCoding.zero) return Buffer.alloc(rawBytes);
  if (stored.length < storedBytes) {
    return bad("truncated", `${stored.length} of ${storedBytes} bytes of frame ${number}`);
  }
  const bytes = stored.subarray(0, storedBytes);
  if (checksumOf(bytes) !== frame.checksum) {
    return bad("checksum", `the checksum of frame ${number} does not match its bytes`);
  }
  return coding === frameCoding.stored ? bytes : null;
}

function opened(frame: ObjectFrame, raw: Buffer | null): Buffer | BadBytes<ObjectFault> {
  if (raw !== null) return raw;
  return bad("compression", `frame ${frame.number} does not decompress to ${frame.rawBytes} bytes`);
}
