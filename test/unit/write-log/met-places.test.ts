// Places that a reader met: each LSN is found in the message that holds it, or in one shortly before, and never in one behind it.
import { expect, test } from "vitest";
import { MetPlaces } from "#shared/adapters/write-log/jetstream-places.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";

/** Messages of 1 to 5 entries, sequences with gaps (what fenced writers left). */
function messagesOf(random: SeededRandom, count: number) {
  let [firstLsn, sequence] = [1, 1];
  return Array.from({ length: count }, () => {
    const lastLsn = firstLsn + random.between(0, 5);
    const message = { firstLsn, lastLsn, sequence };
    firstLsn = lastLsn + 1;
    sequence += random.between(1, 4);
    return message;
  });
}

test("what was met is found again, in whatever order it was met", () => {
  for (let seed = 1; seed <= 30; seed += 1) {
    const random = new SeededRandom(seed);
    const messages = messagesOf(random, 100);
    const places = new MetPlaces();
    const met = new Set<number>();
    for (let run = 0; run < 8; run += 1) {
      const begin = random.between(0, 90);
      const end = begin + random.between(1, 11);
      for (let index = begin; index < end; index += 1) {
        const { firstLsn, lastLsn, sequence } = messages[index] as (typeof messages)[0];
        // As two batches, where there are so many.
        const middle = Math.floor((firstLsn + lastLsn) / 2);
        places.add(firstLsn, middle, sequence);
        if (middle < lastLsn) places.add(middle + 1, lastLsn, sequence);
        met.add(index);
      }
    }
    for (const [index, { firstLsn, lastLsn, sequence }] of messages.entries()) {
      const found = met.has(index) ? sequence : 0;
      for (const lsn of [firstLsn, lastLsn])
        expect([seed, lsn, places.find(lsn)]).toEqual([seed, lsn, found]);
    }
    expect(places.find((messages.at(-1)?.lastLsn ?? 0) + 1)).toBe(0);
  }
});

test("they stay few: neighbours are joined, lone ones forgotten, and none is ever found too late", () => {
  const messages = messagesOf(new SeededRandom(7), 4000);
  for (const step of [1, 2]) {
    const places = new MetPlaces(64);
    for (let index = 0; index < messages.length; index += step) {
      const { firstLsn, lastLsn, sequence } = messages[index] as (typeof messages)[0];
      places.add(firstLsn, lastLsn, sequence);
      expect(places.size).toBeLessThanOrEqual(64);
    }
    let count = 0;
    for (const [index, { firstLsn, lastLsn, sequence }] of messages.entries()) {
      const found = places.find(lastLsn);
      if (found === 0) continue;
      count += 1;
      expect(found).toBeLessThanOrEqual(sequence);
      if (step === 2) expect([index % 2, found, places.find(firstLsn)]).toEqual([0, sequence, sequence]);
    }
    expect(count).toBeGreaterThanOrEqual(step === 1 ? 3900 : 32);
  }
});
