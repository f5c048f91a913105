// Extents of an open volume that are given back by hand: each is chosen once, however fast readers bring it back.
import { expect, test } from "vitest";
import type { ReplicaExtents } from "#shared/ports/replica-residency.ts";
import { SessionExtents } from "../../../services/gateway/engine/session-extents.ts";

test("giving back what is cold ends under readers, who bring back each extent as it leaves", async () => {
  const evicted: number[] = [];
  const extents = {
    // All are there again at once, and those that nobody reads are the coldest.
    coldExtents: async (_base: number, _beforeMs: number, most: number) =>
      Array.from({ length: 10_000 }, (_, extent) => extent).slice(0, most),
    evict: async ({ extents: chosen }: { readonly extents: readonly number[] }) => {
      evicted.push(...chosen);
      if (evicted.length > 20_000) throw new Error("it goes on and on");
      return chosen.length;
    },
  } as unknown as ReplicaExtents;
  const base = { baseLsn: 3, point: { volumeId: "v", lsn: 3 } };
  expect(await new SessionExtents(extents, undefined).evictCold(base, 0)).toBe(10_000);
  expect(new Set(evicted).size).toBe(10_000);
});
