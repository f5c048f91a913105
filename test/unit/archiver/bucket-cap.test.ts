/*
 * A cap on the bucket: what is above it goes before its time, the oldest first, and it is said; what present disks need stays all the
 * same. The same with random pasts and real bytes: retention-property.deep.test.ts.
 */
import { describe, expect, it } from "vitest";
import { CollectorWorld, runFor, sweep, threeDays } from "./collector-world.ts";

describe("a bucket with a cap", () => {
  it("above the cap lets the oldest go before its time, says so, and says where nothing more can go", async () => {
    const world = new CollectorWorld();
    const volume = world.volume(1);
    await threeDays(world, volume);
    await world.collector().run(sweep);
    const retained = volume.published?.retainedFromLsn ?? 0;
    world.bucketBytesMax = 1;
    const dry = await world.collector().run({ ...sweep, dryRun: true });
    expect(dry.trimmed).toHaveLength(1);
    expect(volume.published?.retainedFromLsn).toBe(retained);
    expect(world.notes).toEqual([]);
    const first = await world.collector().run(sweep);
    expect(first.trimmed).toHaveLength(1);
    expect(volume.published?.retainedFromLsn).toBeGreaterThan(retained);
    expect(world.notes).toEqual([
      expect.stringMatching(
        /^warning: the bucket holds .* may hold 1 B \(--bucket-max\): the history of .* before its time$/,
      ),
    ]);
    // The present disk is above this cap by itself.
    const second = await world.collector().run(sweep);
    expect(second.trimmed).toEqual([]);
    expect(second.findings).toContainEqual({
      key: "bucket",
      problem: expect.stringContaining("delete snapshots, or raise the cap"),
    });
    await runFor(world, 60, world.collector());
    expect(await world.dangling()).toEqual([]);
    expect(volume.published?.bases).toHaveLength(1);
  });

  it("a cap that is kept changes nothing", async () => {
    const world = new CollectorWorld();
    const volume = world.volume(1);
    await threeDays(world, volume);
    world.bucketBytesMax = 2 ** 30;
    const report = await world.collector().run(sweep);
    const plain = new CollectorWorld();
    const other = plain.volume(1);
    await threeDays(plain, other);
    expect(report.trimmed).toEqual((await plain.collector().run(sweep)).trimmed);
    expect(volume.published?.retainedFromLsn).toBe(other.published?.retainedFromLsn);
  });
});
