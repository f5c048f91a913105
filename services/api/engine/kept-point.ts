/*
 * A point that somebody will read from for long, so that the bucket has it and keeps it: waits until the published manifest has point and
 * pin, then opens it from the bucket alone. Used by cluster-clones.ts and cluster-rollback.ts, which put the pin into the volume's history
 * record before: that asks its archiver to archive up to it. docs/specs/cluster.md#clones.
 */
import type { PointPin } from "#shared/domain/archive.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { ArchivedImages } from "#shared/ports/archived-images.ts";
import type { Clock } from "#shared/ports/clock.ts";

export interface KeptPointParts {
  readonly clock: Clock;
  readonly images: Pick<ArchivedImages, "newest" | "point">;
}

const lookMs = 500;

/** From here on nothing that the point needs is dropped. Rejects PointNotArchived (Retry), or as ArchivedImages. */
export async function untilKept(
  { clock, images }: KeptPointParts,
  volume: VolumeRecord,
  pin: PointPin,
): Promise<void> {
  const endMs = clock.monotonicMs() + limits.bucketCommandMs;
  let failure: VarveError | null = null;
  for (;;) {
    const found = await images.newest(volume.id).catch((cause: unknown) => {
      failure = toVarveError(cause, "look into the bucket");
      if (failure.kind !== "Retry") throw failure;
      return null;
    });
    const isPinned = found?.pins.some(({ lsn, holder }) => lsn === pin.lsn && holder === pin.holder);
    if (found !== null && found.lsn >= pin.lsn && isPinned === true) break;
    if (clock.monotonicMs() >= endMs) throw notArchived(volume.name, pin.lsn, failure);
    await new Promise<void>((resolve) => {
      clock.after(lookMs, resolve);
    });
  }
  // Retention may have passed it before the pin was published: that it is pinned now does not bring back what it needs.
  await (await images.point(volume.id, pin.lsn)).close();
}

function notArchived(name: string, lsn: number, cause: VarveError | null): VarveError {
  const seconds = limits.bucketCommandMs / 1000;
  const why = cause === null ? "" : `: ${cause.message}`;
  return new VarveError(
    "PointNotArchived",
    "Retry",
    `the bucket did not get volume ${name} up to entry ${lsn} within ${seconds} s${why}`,
    {
      hint: "Look whether a varve archiver runs and reaches the bucket, then try again. No disk was changed.",
      fields: { name, lsn },
      cause,
    },
  );
}
