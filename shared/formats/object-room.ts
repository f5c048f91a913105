/*
 * Memory in which segments and chunks are put together, one object after the other: frames are compressed straight to their place, and
 * nothing is allocated for each (ADR 008). segment-object.ts and chunk-object.ts build in it; an archive thread keeps one and brings its own
 * compressor (adapters/archive-worker/native-zstd.ts). Without one they make a room for each object.
 */
import { compress, discard, frameBytesMax } from "./sealed-object.ts";

/** Writes a zstd frame of `raw` to the start of `into`: its length in bytes, or null where it does not fit. */
export type CompressInto = (raw: Uint8Array, into: Buffer, level: number) => number | null;

/** By the zlib of Node: a context and a buffer of its own for each call, and a copy. */
export const compressByNode: CompressInto = (raw, into, level) => {
  const packed = compress(raw, level);
  const { length: bytes } = packed;
  const fits = bytes <= into.length;
  if (fits) packed.copy(into);
  discard(packed);
  return fits ? bytes : null;
};

const growBytes = 1024 * 1024;
/** Of segments and chunks as they usually are. What a larger one took is given back. */
const keptBytesMax = 12 * 1024 * 1024;

export class ObjectRoom {
  private readonly compressInto: CompressInto;
  /** Called before each piece of work on an object, of a frame's size at most: whoever builds may have to let others go first. */
  readonly beforePiece: () => void;
  private memory: Buffer = Buffer.alloc(0);
  private used = 0;

  constructor(compressInto: CompressInto = compressByNode, beforePiece: () => void = () => undefined) {
    this.compressInto = compressInto;
    this.beforePiece = beforePiece;
  }

  /** A new object, of about `bytes` bytes: what was built before is void. */
  begin(bytes: number): void {
    this.used = 0;
    if (this.memory.length > keptBytesMax) this.memory = Buffer.alloc(0);
    this.reserve(bytes);
  }

  /** Bytes of the object up to now. */
  get bytes(): number {
    return this.used;
  }

  /** Room for `bytes` zeroes at the end. */
  addZeroes(bytes: number): void {
    this.reserve(bytes);
    this.memory.fill(0, this.used, this.used + bytes);
    this.used += bytes;
  }

  /** Adds a zstd frame of `raw` where that is shorter, else `raw` as it is. Level 0 does not try. */
  add(raw: Buffer, level: number): { readonly bytes: Buffer; readonly isCompressed: boolean } {
    const start = this.used;
    this.beforePiece();
    this.reserve(frameBytesMax(raw.length));
    const packed = level === 0 ? null : this.compressInto(raw, this.memory.subarray(start), level);
    const isCompressed = packed !== null && packed < raw.length;
    if (!isCompressed) raw.copy(this.memory, start);
    this.used += isCompressed ? packed : raw.length;
    return { bytes: this.memory.subarray(start, this.used), isCompressed };
  }

  /** The object, until the next begin(). */
  get object(): Buffer {
    return this.memory.subarray(0, this.used);
  }

  /** Views from before are void afterwards. */
  private reserve(bytes: number): void {
    const needed = this.used + bytes;
    if (needed <= this.memory.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.ceil(needed / growBytes) * growBytes);
    this.memory.copy(larger, 0, 0, this.used);
    this.memory = larger;
  }
}
