/*
 * Which bytes of a point one request of the HTTP API may read. Asked by whoever answers it: the gateway of one machine and the
 * api process of a cluster.
 */
import { VarveError } from "./errors.ts";
import { limits } from "./limits.ts";

/** Throws BlockRangeError where the range is none of a disk of that size, or too long for one answer. */
export function checkBlockRange(offset: number, length: number, sizeBytes: number): void {
  const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 1;
  if (whole && length <= limits.blockReadBytesMax && offset + length <= sizeBytes) return;
  throw new VarveError(
    "BlockRangeError",
    "Invalid",
    `offset ${offset} and length ${length} are not a range of this disk: it had ${sizeBytes} bytes at that point`,
    {
      hint: `One read brings 1 to ${limits.blockReadBytesMax} bytes. For whole disks use NBD: nbdcopy nbd://HOST/VOL@POINT FILE.`,
      fields: { sizeBytes },
    },
  );
}
