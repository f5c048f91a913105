/*
 * The checksum by which storage nodes compare an extent (docs/formats/replica-message.md, `hashes`): of the checksums of its parts, so that
 * a part fits the memory of one read. Used by replica-copies.ts and replica-scrub.ts of services/storage/engine/.
 */
import { limits } from "#shared/domain/limits.ts";
import { checksumOf } from "./checksum.ts";

const partBytes = limits.replicaReadBytesMax;

export class ExtentSum {
  readonly #sums = Buffer.alloc((limits.extentBytes / partBytes) * 8);
  #parts = 0;

  /** The next part: partBytes of them, the last one of a disk may be shorter. */
  add(bytes: Uint8Array): void {
    this.#sums.writeBigUInt64LE(checksumOf(bytes), this.#parts * 8);
    this.#parts += 1;
  }

  value(): bigint {
    return checksumOf(this.#sums);
  }
}

/** Of an extent, or what the disk has of its last one. */
export function extentSumOf(bytes: Uint8Array): bigint {
  const sum = new ExtentSum();
  for (let at = 0; at < bytes.length; at += partBytes) sum.add(bytes.subarray(at, at + partBytes));
  return sum.value();
}

/** As a message carries it alone. */
export function sumText(sum: bigint): string {
  return sum.toString(16).padStart(16, "0");
}
