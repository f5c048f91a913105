/*
 * Reads the footers of published segments: a page is made of them, and which extents a stretch of log touches. Called by
 * manifest-publisher.ts and dirty-extents.ts; the archive thread decodes them.
 */
import type { SegmentRef } from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { SegmentTail } from "#shared/ports/archive-worker.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";

/**
 * Retry where one is missing: a segment that the bucket lost before it was held comes back from the hot log. Some at a time; a footer of 8 MiB in writes of 4 KiB is 40 KB.
 */
export async function fetchTails(
  store: ObjectStore,
  refs: readonly SegmentRef[],
): Promise<readonly SegmentTail[]> {
  const tails: SegmentTail[] = [];
  const waiting = [...refs.entries()];
  const lane = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [index, ref] = next;
      tails[index] = { ref, tail: await fetchTail(store, ref) };
    }
  };
  await Promise.all(Array.from({ length: limits.archiveRequestsAtOnceMax }, lane));
  return tails;
}

/** Bytes [footerStart, end), with an ArrayBuffer of their own. */
async function fetchTail(store: ObjectStore, ref: SegmentRef): Promise<Uint8Array> {
  const { key, footerStart, bytes } = ref;
  const found = await store.get(key, { start: footerStart, length: bytes - footerStart });
  if (found?.length === bytes - footerStart) return Uint8Array.from(found);
  const problem = found === null ? "is not in the bucket" : "is shorter than its manifest says";
  throw new VarveError("SegmentMissing", "Retry", `${key} ${problem}`, {
    hint: "Run `varve bucket check`.",
    fields: { key },
  });
}
