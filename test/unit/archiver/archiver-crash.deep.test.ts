// A process that dies after any single request to its bucket, and the next one on the same bucket and log: no name that was ever
// published points at nothing, nothing that was archived is lost, and every point reads as the disk was.
import { expect, test } from "vitest";
import type { VolumeManifest } from "#shared/domain/archive.ts";
import { ArchiveWorld, type Life } from "./archive-world.ts";

const diskBytes = 5 * 1024 * 1024;

/** Segments, index pages, manifests, two bases; the whole way that one process may go. */
async function live(world: ArchiveWorld, life: Life): Promise<void> {
  const step = async (work: () => Promise<unknown>): Promise<void> => {
    const state = { isOver: false };
    const over = (): void => {
      state.isOver = true;
    };
    work().then(over, over);
    for (let waited = 0; waited < 40 && !state.isOver; waited += 1) await world.pass(100);
  };
  await step(() => life.opened);
  for (let round = 0; round < 2; round += 1) {
    for (let count = 0; count < 3; count += 1) world.random();
    await world.pass(100);
    await step(async () => (await life.opened).takeBase());
  }
  for (let count = 0; count < 3; count += 1) world.random();
  await step(async () => (await life.opened).archive(world.lastLsn));
}

test("after every single request to the bucket", { timeout: 240_000 }, async () => {
  let requests = Number.POSITIVE_INFINITY;
  for (let left = 0; left <= requests; left += 1) {
    const world = new ArchiveWorld(77, diskBytes);
    world.releases = true;
    const first = world.start({ segmentRecordBytes: 16 * 1024 }, (store) => {
      store.left = left;
    });
    await live(world, first);
    if (first.store.left > 0) requests = left;
    // Whatever it still does, it does without its bucket.
    first.store.left = 0;
    const what = `after ${left} requests`;
    await world.expectNoDanglingName(what);
    const archived = (await world.manifests()).at(-1)?.archivedLsn ?? 0;
    expect(archived, what).toBeGreaterThanOrEqual(world.heldLsn);

    const { volume } = await world.open({ segmentRecordBytes: 16 * 1024 });
    for (let count = 0; count < 2; count += 1) world.random();
    await world.clock.until(volume.takeBase());
    await world.clock.until(volume.archive(world.lastLsn));
    await world.pass(1000);
    expect(world.heldLsn, what).toBe(world.lastLsn);
    await world.expectNoDanglingName(`${what}, then on`);
    const latest = (await world.manifests()).at(-1) as VolumeManifest;
    expect(latest.gaps, what).toEqual([]);
    expect([...latest.pages, ...latest.segments][0]?.firstLsn, what).toBe(1);
    if (left % 6 === 0) await world.expectPoints(0, what);
    else await world.expectPoints(world.lastLsn - 3, what);
  }
  expect(requests).toBeGreaterThan(20);
});

test("failpoints are where the specification says", async () => {
  const world = new ArchiveWorld(78, diskBytes);
  const life = await world.open();
  world.write(0, 1000, 1);
  await world.clock.until(life.volume.takeBase());
  await world.pass(1000);
  expect(new Set(life.failpoints)).toEqual(new Set(["seal", "upload", "publish", "base", "release"]));
  expect(life.failpoints.slice(0, 3)).toEqual(["seal", "upload", "publish"]);
});
