// Clones, rollback and deletion on stand-ins: the order of steps, what a failure or a crash after each one leaves, and when pins
// go. A new host on the same memory is the next start. With real buckets and clients: test/e2e/history-changes.test.ts.
import { beforeEach, describe, expect, test } from "vitest";
import { FileStoreError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { PastWorld } from "./past-world.ts";

let world: PastWorld;
beforeEach(() => {
  world = new PastWorld();
});

describe("create from a point", () => {
  test("archives, pins, looks again, and only then exists", async () => {
    const host = await world.serving("disk0");
    world.calls.length = 0;
    const started = await host.past.createFrom(world.wanted("copy", "disk0", "lsn:5"));
    expect(world.calls).toEqual([
      "resolve disk0 lsn:5",
      "archive disk0 7",
      "publish disk0 pins 5",
      "look at disk0 lsn:5",
      "create copy from disk0@5",
      "open copy",
    ]);
    expect(started.volume).toMatchObject({ name: "copy", past: { origin: { name: "disk0", lsn: 5 } } });
    expect(started.point.lsn).toBe(5);
    expect(host.show("disk0").past?.pins).toBe(1);
  });

  test.each(["archive disk0", "publish disk0", "create copy", "open copy"])(
    "where %s fails nothing is left, not even the pin",
    async (step) => {
      const host = await world.serving("disk0");
      world.broken.add(step);
      await expect(host.past.createFrom(world.wanted("copy", "disk0", "lsn:5"))).rejects.toThrow(
        `${step} failed`,
      );
      expect(host.list().map((one) => one.name)).toEqual(["disk0"]);
      expect(host.show("disk0").past?.pins).toBe(0);
      expect(await world.directories()).toEqual(["disk0"]);
    },
  );

  test.each(["publish disk0", "create copy", "open copy"])(
    "a crash after %s leaves at most a pin, which the next start's upkeep takes out",
    async (step) => {
      const host = await world.serving("disk0");
      world.crashAfter = step;
      await expect(host.past.createFrom(world.wanted("copy", "disk0", "lsn:5"))).rejects.toThrow("crashed");
      const next = await world.restart();
      expect(next.list().map((one) => one.name)).toEqual(["disk0"]);
      expect(await world.directories()).toEqual(["disk0"]);
      await world.pass(limits.pinUpkeepMs);
      expect(next.show("disk0").past?.pins).toBe(0);
    },
  );

  test("a point that retention passed meanwhile is given up again", async () => {
    const host = await world.serving("disk0");
    world.onPublish = () => {
      world.oldestLsn = 6;
    };
    await expect(host.past.createFrom(world.wanted("copy", "disk0", "lsn:5"))).rejects.toThrow(
      "no point lsn:5",
    );
    expect(host.show("disk0").past?.pins).toBe(0);
    expect(host.list()).toHaveLength(1);
  });

  test("a bucket that does not answer is waited for with a limit", async () => {
    const host = await world.serving("disk0");
    world.hanging.add("archive disk0");
    const made = host.past.createFrom(world.wanted("copy", "disk0", "lsn:5"));
    made.catch(() => undefined);
    await world.pass(limits.bucketCommandMs);
    await expect(made).rejects.toMatchObject({ _tag: "BucketAwayError", kind: "Retry" });
    expect(host.list()).toHaveLength(1);
    world.archiveError = new FileStoreError("write", "/bucket/objects", "ENOSPC");
    const full = host.past.createFrom(world.wanted("copy", "disk0", "lsn:5"));
    full.catch(() => undefined);
    await world.pass(limits.bucketCommandMs);
    await expect(full).rejects.toMatchObject({
      _tag: "BucketBehindError",
      kind: "Full",
      message: expect.stringMatching(/within 30 s: write \/bucket\/objects: ENOSPC$/),
      hint: expect.stringMatching(/make room on it .* Nothing was changed\.$/),
    });
    world.archiveError = null;
    const again = host.past.createFrom(world.wanted("copy", "disk0", "lsn:5"));
    again.catch(() => undefined);
    await world.pass(0);
    await host.close();
    await expect(again).rejects.toMatchObject({ _tag: "HostClosingError" });
  });

  test("the parent's pin goes when the clone reads from it no more and stands on a base of its own", async () => {
    const host = await world.serving("disk0");
    await host.past.createFrom(world.wanted("copy", "disk0", "lsn:5"));
    const pins = async (): Promise<number | undefined> => {
      await world.pass(limits.pinUpkeepMs);
      return host.show("disk0").past?.pins;
    };
    world.readsFrom("copy", "disk0", 5);
    expect(await pins()).toBe(1);
    await expect(host.delete("disk0")).rejects.toMatchObject({ _tag: "VolumeNeededError" });
    world.readsFrom("copy");
    expect(await pins()).toBe(1);
    world.manifestOf("copy", { bases: [{ s: 3, e: 4 }], retainedFromLsn: 3 });
    expect(await pins()).toBe(1);
    world.manifestOf("copy", { bases: [{ s: 3, e: 4 }], retainedFromLsn: 4 });
    // A store may still lose a base that is not held.
    world.basesAreHeld = false;
    expect(await pins()).toBe(1);
    world.basesAreHeld = true;
    expect(await pins()).toBe(0);
  });
});

describe("rollback", () => {
  test("archives everything, pins, looks again, appends, and tells the extents that can have changed", async () => {
    const host = await world.serving("disk0");
    world.calls.length = 0;
    const started = await host.past.rollback("disk0", "lsn:5", false);
    expect(world.calls).toEqual([
      "resolve disk0 lsn:5",
      "archive disk0 7",
      "publish disk0 pins 5",
      "look at disk0 lsn:5",
      "rollback disk0 5 size 4096 changed 0+1",
    ]);
    expect(started.job).toMatchObject({ kind: "rollback", volume: "disk0" });
  });

  test("a failure before the entry leaves the disk as it was, without a pin", async () => {
    const host = await world.serving("disk0");
    for (const step of ["archive disk0", "publish disk0", "rollback disk0"]) {
      world.broken.add(step);
      await expect(host.past.rollback("disk0", "lsn:5", false)).rejects.toThrow(`${step} failed`);
      world.broken.delete(step);
      expect(host.show("disk0")).toMatchObject({ condition: "serving" });
      if (step === "rollback disk0") expect(host.show("disk0").past?.pins).toBe(0);
    }
  });

  test("an attached client refuses it; forced, its connections are cut first", async () => {
    const host = await world.serving("disk0");
    const client = await host.exports.open("disk0");
    await expect(host.past.rollback("disk0", "lsn:5", false)).rejects.toMatchObject({
      _tag: "VolumeAttachedError",
    });
    host.connectionsAre({ disconnectExport: () => client?.close() });
    expect((await host.past.rollback("disk0", "lsn:5", true)).disconnected).toBe(1);
  });

  test("its pin goes when a base stands behind it", async () => {
    const host = await world.serving("disk0");
    await host.past.rollback("disk0", "lsn:5", false);
    const pins = async (): Promise<number | undefined> => {
      await world.pass(limits.pinUpkeepMs);
      return host.show("disk0").past?.pins;
    };
    world.manifestOf("disk0", { archivedLsn: 6 });
    expect(await pins()).toBe(1);
    const rebases = [{ lsn: 9, toLsn: 5 }];
    world.manifestOf("disk0", { archivedLsn: 9, rebases, bases: [{ s: 8, e: 8 }], retainedFromLsn: 8 });
    expect(await pins()).toBe(1);
    world.manifestOf("disk0", { archivedLsn: 12, rebases, bases: [{ s: 10, e: 11 }], retainedFromLsn: 11 });
    // A store may still lose a base that is not held.
    world.basesAreHeld = false;
    expect(await pins()).toBe(1);
    world.basesAreHeld = true;
    expect(await pins()).toBe(0);
  });

  test("a pin whose entry never came into the log goes after the next start", async () => {
    const host = await world.serving("disk0");
    world.crashAfter = "publish disk0";
    await expect(host.past.rollback("disk0", "lsn:5", false)).rejects.toThrow("crashed");
    const next = await world.restart();
    world.manifestOf("disk0", { archivedLsn: 7 });
    await world.pass(limits.pinUpkeepMs);
    expect(next.show("disk0").past?.pins).toBe(0);
  });
});

describe("deletion", () => {
  test("is told to the bucket before anything goes", async () => {
    const host = await world.serving("disk0");
    world.calls.length = 0;
    await host.delete("disk0");
    expect(world.calls.slice(0, 2)).toEqual(["archive disk0 7", "publish disk0 deleted"]);
    expect(await world.directories()).toEqual([]);
  });

  test("of a clone keeps its parent's pin until its files are gone, because it may come back", async () => {
    const host = await world.serving("disk0");
    await host.past.createFrom(world.wanted("copy", "disk0", "lsn:5"));
    world.readsFrom("copy", "disk0", 5);
    world.heldLsn = 3;
    await host.delete("copy");
    await world.pass(limits.pinUpkeepMs);
    expect(host.show("disk0").past?.pins).toBe(1);
    world.heldLsn = 7;
    await world.pass(1_000);
    expect(host.list().map((one) => one.name)).toEqual(["disk0"]);
    expect(host.show("disk0").past?.pins).toBe(0);
  });

  test("that can't be told does not happen", async () => {
    const host = await world.serving("disk0");
    world.broken.add("publish disk0");
    await expect(host.delete("disk0")).rejects.toThrow("publish disk0 failed");
    world.broken.clear();
    expect(host.show("disk0").condition).toBe("serving");
    await host.past.createSnapshot("disk0", "one");
    await world.pass(0);
    expect(world.calls.at(-1)).toBe("publish disk0");
  });
});

describe("the archive beside a session", () => {
  test("one that does not answer keeps the volume from being served for a limited time only", async () => {
    world.hanging.add("archiver disk0");
    const starting = world.start("disk0");
    await world.pass(limits.archiveOpenMs);
    const host = await starting;
    expect(host.show("disk0")).toMatchObject({ condition: "serving", past: { archive: "away" } });
    await expect(host.past.rollback("disk0", "lsn:5", false)).rejects.toMatchObject({ kind: "Retry" });
  });

  test("one that fails is opened again, with a new epoch each time", async () => {
    world.broken.add("archiver disk0");
    const host = await world.serving("disk0");
    expect(host.show("disk0").past?.archiveError?.message).toBe("archiver disk0 failed");
    world.broken.clear();
    await world.pass(limits.archiveRetryMs);
    expect(host.show("disk0").past).toMatchObject({ archive: "running", archiveError: null });
    expect(world.epochs).toEqual([1, 2]);
  });

  test("a volume that was rescued elsewhere is not served, and stops where that is found later", async () => {
    const host = await world.serving("disk0", "disk1");
    world.fence("disk0");
    await world.pass(0);
    expect(host.show("disk0")).toMatchObject({ condition: "failed", failure: { kind: "Fenced" } });
    expect(host.show("disk1").condition).toBe("serving");
    world.fencedAtOpen.add("disk1");
    const next = await world.restart();
    expect(next.show("disk1")).toMatchObject({ condition: "failed", failure: { kind: "Fenced" } });
    await expect(next.exports.open("disk1")).rejects.toMatchObject({ kind: "Fenced" });
  });
});
