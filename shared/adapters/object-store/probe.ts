/*
 * Tries what a store says of itself: several puts with onlyNew at once on a fresh key under probe/. Exactly one may win, all
 * others must be refused, and the object must be the winner's. Stores that ignore If-None-Match let all win, ones that check
 * and write in two steps let two. Called by each store's probe(); the objects are removed afterwards.
 */
import { ObjectStoreError } from "#shared/domain/errors.ts";
import type { Random } from "#shared/ports/clock.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";

const rounds = 3;
const contenders = 8;

/**
 * True where the store keeps the promise of onlyNew. Rejects where the store can't be reached or used at all: then nothing is
 * known. A store that refuses the header itself (Invalid on the conditional put only) counts as one that can't.
 */
export async function probeConditionalPut(store: ObjectStore, random: Random): Promise<boolean> {
  for (let round = 0; round < rounds; round += 1) {
    const key = `probe/${random.hex(16)}`;
    if (!(await removing(store, key, () => oneWins(store, key, random)))) return false;
  }
  return true;
}

/** Removes the key after `work`; where that failed, its failure is what the caller learns. */
async function removing<T>(store: ObjectStore, key: string, work: () => Promise<T>): Promise<T> {
  let result: T;
  try {
    result = await work();
  } catch (error) {
    await store.remove(key).catch(() => undefined);
    throw error;
  }
  await store.remove(key);
  return result;
}

async function oneWins(store: ObjectStore, key: string, random: Random): Promise<boolean> {
  await checkPlainPut(store, `${key}.plain`, random);
  const contents = Array.from({ length: contenders }, (_, index) =>
    Buffer.from(`${index} ${random.hex(16)}\n`),
  );
  const answers = await Promise.allSettled(
    contents.map((content) => store.put(key, content, { onlyNew: true })),
  );
  const refused = answers.filter((answer) => answer.status === "rejected");
  for (const { reason } of refused) {
    if (!(reason instanceof ObjectStoreError) || reason.kind !== "Invalid") throw reason;
  }
  if (refused.length > 0) return false;
  const winners = contents.filter((_, index) => {
    const answer = answers[index];
    return answer?.status === "fulfilled" && answer.value === "stored";
  });
  const [winner] = winners;
  if (winners.length !== 1 || winner === undefined) return false;
  const late = await store.put(key, Buffer.from("late\n"), { onlyNew: true });
  const content = await store.get(key);
  return late === "exists" && content !== null && content.equals(winner);
}

/** Put, get and delete must work before anything is said about conditions. */
async function checkPlainPut(store: ObjectStore, key: string, random: Random): Promise<void> {
  const content = Buffer.from(random.hex(64));
  await removing(store, key, async () => {
    await store.put(key, content);
    const back = await store.get(key);
    if (back?.equals(content) === true) return;
    throw new ObjectStoreError(
      { kind: "Internal", operation: "probe", place: store.place, key },
      back === null ? "an object that was just put is not there" : "an object came back with other bytes",
      { hint: "This store can't hold history. Use another, or a directory." },
    );
  });
}
