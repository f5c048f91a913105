/*
 * The collector beside a wall clock that is wrong: it jumps to 2040 or to 1970, or stands there when the machine starts and nobody
 * has collected yet; a machine that was off. See docs/specs/retention.md, "Retention time".
 */
import { describe, expect, it } from "vitest";
import { CollectorWorld, runFor, sweep, threeDays } from "./collector-world.ts";
import { hour, startMs } from "./small-bucket.ts";

describe("wrong clocks", () => {
  it("a clock that jumps to 2040 deletes nothing for a day, and then not faster than time passes", async () => {
    const world = new CollectorWorld();
    const volume = world.volume(1, { historyMs: 10 * 24 * hour });
    await threeDays(world, volume);
    const collector = world.collector();
    await collector.run(sweep);
    const bases = volume.published?.bases.length;
    world.clock.wallMs = Date.UTC(2040, 0, 1);
    const jumped = await collector.run(sweep);
    expect(jumped.paused).toContain("forward");
    expect(world.notes.join()).toContain("jumped forward");
    expect(jumped.deleted).toBe(0);
    // Entries are written with the wrong time, too.
    await volume.segment();
    await volume.publish();
    await runFor(world, 5 * 24, collector);
    expect(volume.published?.bases).toHaveLength(bases ?? 0);
    expect(volume.published?.retainedFromLsn).toBe(0);
    expect(await world.dangling()).toEqual([]);
  });

  it("a clock that jumps to 1970 deletes nothing while it stands there", async () => {
    const world = new CollectorWorld();
    const volume = world.volume(1);
    await threeDays(world, volume);
    const collector = world.collector();
    await collector.run(sweep);
    const before = await world.keys();
    world.clock.wallMs = 1000;
    await runFor(world, 200, collector);
    expect(await world.keys()).toEqual(before);
    // Right again: a day's pause, then it goes on.
    world.clock.wallMs = startMs + 400 * hour;
    await runFor(world, 12, collector);
    expect(await world.keys()).toEqual(before);
    await runFor(world, 60, collector);
    expect((await world.keys()).length).toBeLessThan(before.length - 20);
    expect(await world.dangling()).toEqual([]);
  });

  it("a machine that starts in 2040 trims nothing on its first run ever, nor in the days after", async () => {
    const world = new CollectorWorld();
    const volume = world.volume(1);
    await threeDays(world, volume);
    const bases = volume.published?.bases.length;
    // Nobody collected yet. The next start is at a wrong time, and what its archiver publishes bears that time.
    world.startedMs = world.clock.monotonic;
    world.clock.wallMs = Date.UTC(2040, 0, 1);
    await volume.segment();
    await volume.publish();
    const collector = world.collector();
    const report = await runFor(world, 20, collector);
    expect(report.timeMs).toBeLessThanOrEqual(startMs + 24 * hour);
    expect(volume.published?.retainedFromLsn).toBe(0);
    expect(volume.published?.bases).toHaveLength(bases ?? 0);
    // Right again: nothing is lost by that either, and in the end retention goes on.
    world.clock.wallMs = startMs + 92 * hour;
    const corrected = await runFor(world, 12, collector);
    expect(corrected.paused).not.toBeNull();
    expect(volume.published?.retainedFromLsn).toBe(0);
    await runFor(world, 60, collector);
    expect(volume.published?.retainedFromLsn).toBeGreaterThan(0);
    expect(await world.dangling()).toEqual([]);
  });

  it("a machine that starts in 1970 trims nothing on its first run ever, nor when its clock is set", async () => {
    const world = new CollectorWorld();
    const volume = world.volume(1);
    await threeDays(world, volume);
    world.startedMs = world.clock.monotonic;
    world.clock.wallMs = 1000;
    await volume.segment();
    await volume.publish();
    const collector = world.collector();
    await runFor(world, 12, collector);
    world.clock.wallMs = startMs + 84 * hour;
    const set = await runFor(world, 6, collector);
    expect(volume.published?.retainedFromLsn).toBe(0);
    expect(set.behindMs).toBeGreaterThan(50 * 365 * 24 * hour);
    await collector.run({ ...sweep, acceptClock: true });
    expect(volume.published?.retainedFromLsn).toBeGreaterThan(0);
    expect(await world.dangling()).toEqual([]);
  });

  it("a bucket that began in 2040 keeps all of it when the clock is right, and says so until the operator accepts it", async () => {
    const world = new CollectorWorld();
    world.clock.wallMs = Date.UTC(2040, 0, 1);
    const volume = world.volume(1);
    await volume.segment();
    await volume.publish();
    const collector = world.collector();
    await runFor(world, 12, collector);
    world.clock.wallMs = startMs;
    await threeDays(world, volume);
    const report = await runFor(world, 200, collector);
    expect(report.paused).toContain("--accept-clock");
    expect(volume.published?.retainedFromLsn).toBe(0);
    await collector.run({ ...sweep, acceptClock: true });
    const accepted = await runFor(world, 48, collector);
    expect(accepted.paused).toBeNull();
    expect(volume.published?.retainedFromLsn).toBeGreaterThan(0);
    expect(await world.dangling()).toEqual([]);
  });

  it("a machine that was off keeps more, until the operator accepts the clock", async () => {
    const world = new CollectorWorld();
    const volume = world.volume(1);
    await threeDays(world, volume);
    const first = await world.collector().run(sweep);
    world.clock.wallMs += 300 * hour;
    const collector = world.collector();
    const after = await collector.run(sweep);
    expect(after.timeMs).toBe(first.timeMs);
    expect(after.behindMs).toBe(306 * hour);
    const accepted = await collector.run({ ...sweep, acceptClock: true });
    expect(accepted.behindMs).toBe(0);
    expect(volume.published?.retainedFromLsn).toBe(120);
  });
});
