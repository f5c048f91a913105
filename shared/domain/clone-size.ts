/*
 * How large a clone is: as its parent was at the point, or larger (zeroes behind). Decided before anything is made, by the volume host of
 * one machine and the api of a cluster (docs/specs/points.md, §4). Pure.
 */
import { VarveError } from "./errors.ts";

export interface WantedClone {
  readonly parent: string;
  readonly point: string;
  /** Null: the size that the parent had at the point. */
  readonly sizeBytes: number | null;
}

/** Throws Invalid where the clone would lose its end. */
export function cloneSize({ parent, point, sizeBytes }: WantedClone, pointBytes: number): number {
  const wantedBytes = sizeBytes ?? pointBytes;
  if (wantedBytes >= pointBytes) return wantedBytes;
  throw new VarveError(
    "CloneTooSmallError",
    "Invalid",
    `${parent}@${point} has ${pointBytes} bytes; ${wantedBytes} bytes would cut off its end`,
    {
      hint: "Leave out the size, or give a larger one; shrink the new volume afterwards with volume resize --shrink.",
      fields: { sizeBytes: pointBytes, wantedBytes },
    },
  );
}
