// A replica that is copied from others while they go on applying: at the end it is the fold of the log, and the image that was there
// before stays usable until the copy is whole; killed or crashed anywhere: replica-fill.deep.test.ts. Peers are real images on a memory store;
// the filled one is on the simulated disk (fill-world.ts). From the bucket: bucket-fill.test.ts.
import { describe, expect, test } from "vitest";
import type { Batch } from "#shared/domain/batch.ts";
import { lastLsnOf } from "#shared/domain/batch.ts";
import { replicaCopySubject } from "#shared/domain/cluster-subjects.ts";
import { fillPathOf } from "#shared/domain/data-layout.ts";
import { limits } from "#shared/domain/limits.ts";
import { decodeMessage, encodeMessage, isBadMessage } from "#shared/formats/replica-message.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import {
  expectSame,
  fillOf,
  makeOld,
  type Peer,
  paths,
  sizeBytes,
  volumeId,
  type World,
  world,
} from "./fill-world.ts";

/** The bus has time limits of its own: until they have passed nothing is left to happen. */
async function nobody(made: World, store: FileStore): Promise<number> {
  const running = fillOf(made, store).run();
  running.catch(() => undefined);
  await made.clock.run(100);
  await new Promise((resolve) => setTimeout(resolve, 1200));
  return await made.clock.until(running);
}

describe("a fill", () => {
  test("from several that go on applying gives what they have, its holes included", async () => {
    for (let seed = 0; seed < 12; seed += 1) {
      const made = await world(seed, ["a", "b"]);
      const store = made.disk.store();
      await makeOld(made, store);
      const exactLsn = await made.clock.until(fillOf(made, store).run());
      const filled = await made.clock.until(made.attach(store));
      expect(filled.state().appliedLsn).toBeGreaterThanOrEqual(39);
      expect(exactLsn).toBeGreaterThanOrEqual(filled.state().appliedLsn);
      expect(await made.clock.until(store.facts(fillPathOf(paths.image)))).toBeNull();
      await expectSame(made, filled);
    }
  });

  test("an empty disk is copied without a byte", async () => {
    const made = await world(1, ["a"]);
    const { a } = made.peers as { a: Peer };
    const zeroes = { kind: "trim", offset: 0, length: 2 * sizeBytes } as const;
    const last = made.log.at(-1) as Batch;
    await a.applyTo(lastLsnOf(last));
    await a.image.apply([
      {
        ...last,
        firstLsn: lastLsnOf(last) + 1,
        previousChecksum: last.checksum,
        checksum: 1n,
        entries: [zeroes],
        payload: new Uint8Array(),
      },
    ]);
    const store = made.disk.store();
    const fill = fillOf(made, store);
    await made.clock.until(fill.run());
    expect(fill.copiedBytes).toBe(0);
    expect((await made.clock.until(store.facts(paths.image)))?.allocatedBytes).toBe(0);
  });

  test("a peer that falls silent is done without; with none at all nothing is begun and nothing lost", async () => {
    const made = await world(3, ["a", "b"]);
    const { a, b } = made.peers as { a: Peer; b: Peer };
    const store = made.disk.store();
    const old = await makeOld(made, store);
    b.silent = true;
    a.silent = true;
    made.bus.cut = (subject) => subject.endsWith(".copy");
    await expect(nobody(made, store)).rejects.toMatchObject({ _tag: "FillNoSource", kind: "Retry" });
    made.bus.cut = () => false;
    expect((await made.clock.until(store.readWhole(paths.image)))?.equals(old.bytes)).toBe(true);
    a.silent = false;
    made.bus.serve(replicaCopySubject(volumeId, "b"), async () => Buffer.from("nonsense"));
    await made.clock.until(fillOf(made, store).run());
    await expectSame(made, await made.clock.until(made.attach(store)));
  });

  test("where room is short the old image stays as it is, and the copy takes none", async () => {
    const made = await world(4, ["a"]);
    const store = made.disk.store();
    const old = await makeOld(made, store);
    // What a replica takes is known as of its checkpoint.
    await (made.peers as { a: Peer }).a.image.checkpoint();
    await expect(made.clock.until(fillOf(made, store, { roomBytes: 4096 }).run())).rejects.toMatchObject({
      _tag: "FillNoRoom",
      kind: "Full",
    });
    expect((await made.clock.until(store.readWhole(paths.image)))?.equals(old.bytes)).toBe(true);
    expect((await made.clock.until(store.facts(fillPathOf(paths.image))))?.sizeBytes).toBe(0);
  });

  test("a piece that is older than the start, or of the wrong length, is not taken", async () => {
    const made = await world(5, ["a"]);
    const store = made.disk.store();
    const { a } = made.peers as { a: Peer };
    let wrong = 3;
    made.bus.serve(replicaCopySubject(volumeId, "a"), async (data) => {
      const answer = await a.answer(data);
      const decoded = answer === null ? null : decodeMessage(answer);
      if (decoded === null || isBadMessage(decoded) || decoded.message.type !== "piece" || wrong === 0)
        return answer;
      wrong -= 1;
      const { message } = decoded;
      if (wrong === 2) return encodeMessage({ ...message, appliedLsn: 3 });
      if (wrong === 1) return encodeMessage({ ...message, skippedBytes: limits.replicaCopyRangeBytes + 1 });
      return encodeMessage({ ...message, begunLsn: 0 });
    });
    await made.clock.until(fillOf(made, store).run());
    expect(wrong).toBe(0);
    await expectSame(made, await made.clock.until(made.attach(store)));
  });
});
