/*
 * The collector against everything that could make it delete too much: publishes at every moment of a run, errors at every
 * request, power loss of the store, late manifests, hung deletes, wrong clocks, clones, deleted volumes. And that it deletes enough.
 */
import { describe, expect, it } from "vitest";
import { chunkKey, manifestKey } from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { encodeManifest } from "#shared/formats/manifest-object.ts";
import { CollectorWorld, runFor, sweep, threeDays } from "./collector-world.ts";
import { hour, startMs } from "./small-bucket.ts";

describe("collection", () => {
  it("lets go what the window no longer needs, after its grace, and nothing else", async () => {
    const world = new CollectorWorld();
    const volume = world.volume(1);
    await threeDays(world, volume);
    const before = (await world.keys()).length;
    const collector = world.collector();
    const first = await collector.run(sweep);
    expect(first.trimmed).toHaveLength(1);
    expect(first.deleted).toBe(0);
    expect(first.waiting).toBeGreaterThan(20);
    world.clock.pass(2 * hour);
    // Old manifests leave first.
    const second = await collector.run(sweep);
    expect(second.deleted).toBe(24);
    expect(await world.keys("volumes/0000000000000001/manifests/")).toHaveLength(2);
    world.clock.pass(23 * hour);
    await collector.run(sweep);
    expect((await world.keys()).length).toBeLessThan(before - 40);
    expect(await world.dangling()).toEqual([]);
    // An idle disk keeps one base and its log.
    await runFor(world, 60, collector);
    expect(volume.published?.bases).toHaveLength(1);
    expect(await world.keys("chunks/")).toHaveLength(3);
    expect(await world.keys("volumes/0000000000000001/log/")).toHaveLength(0);
    expect(await world.dangling()).toEqual([]);
  });

  it("deletes nothing in a dry run, and says what it would", async () => {
    const world = new CollectorWorld();
    await threeDays(world, world.volume(1));
    const collector = world.collector();
    await collector.run(sweep);
    world.clock.pass(30 * hour);
    const { memory } = world;
    const before = [...(await world.keys()), memory.counters.put];
    const report = await collector.run({ ...sweep, dryRun: true });
    expect(report.deleted).toBeGreaterThan(20);
    expect(report.keys).toHaveLength(report.deleted);
    expect([...(await world.keys()), memory.counters.put]).toEqual(before);
  });

  it("no publish at any moment of a run loses an object", { timeout: 120_000 }, async () => {
    let interleaved = 0;
    for (let request = 1; ; request += 1) {
      const world = new CollectorWorld();
      const volume = world.volume(1);
      await threeDays(world, volume);
      const collector = world.collector();
      await collector.run(sweep);
      world.clock.pass(25 * hour);
      const begin = world.store.requests;
      let done = false;
      // A rollback's target, a clone's pin, a new base, and a second volume that shares chunks, all in the middle of a run.
      world.store.at = async (number) => {
        if (number !== begin + request || done) return;
        done = true;
        await volume.segment();
        await volume.base(["a11", `fresh ${request}`, "same", null]);
        await volume.publish();
        const other = world.volume(2);
        await other.segment();
        await other.base(["same", null, null, "own"]);
        await other.publish();
      };
      await collector.run(sweep);
      world.store.at = null;
      expect(await world.dangling(), `published at request ${request}`).toEqual([]);
      await runFor(world, 36, collector);
      expect(await world.dangling(), `published at request ${request}, later`).toEqual([]);
      if (!done) break;
      interleaved += 1;
    }
    expect(interleaved).toBeGreaterThan(80);
  });

  it("an error at any request deletes nothing that is named, and the next run ends the work", {
    timeout: 120_000,
  }, async () => {
    let broken = 0;
    for (let request = 1; ; request += 1) {
      const world = new CollectorWorld();
      const volume = world.volume(1);
      await threeDays(world, volume);
      const collector = world.collector();
      await collector.run(sweep);
      world.clock.pass(25 * hour);
      const begin = world.store.requests;
      let failed = false;
      world.store.at = (number) => {
        if (number !== begin + request) return;
        failed = true;
        throw new VarveError("ObjectStoreError", "Retry", "injected");
      };
      const outcome = await collector.run(sweep).then(
        () => "done",
        () => "failed",
      );
      world.store.at = null;
      if (!failed) break;
      broken += 1;
      expect(outcome, `fault at request ${request}`).toBe("failed");
      expect(await world.dangling(), `fault at request ${request}`).toEqual([]);
      // Also after a crash: another process, which waits for the lease to run out.
      const next = request % 2 === 0 ? collector : world.collector();
      await next.run(sweep).catch(() => undefined);
      world.clock.pass(30 * hour);
      await next.run(sweep);
      world.clock.pass(30 * hour);
      await next.run(sweep);
      expect(await world.dangling()).toEqual([]);
      expect(await world.keys("chunks/")).toHaveLength(3);
    }
    expect(broken).toBeGreaterThan(80);
  });

  it("a manifest that can't be understood ends the run before anything is deleted", async () => {
    const world = new CollectorWorld();
    await threeDays(world, world.volume(1));
    const collector = world.collector();
    await collector.run(sweep);
    world.clock.pass(30 * hour);
    const other = world.volume(2);
    await other.segment();
    const damagedKey = manifestKey(await other.publish());
    await world.memory.put(
      damagedKey,
      Buffer.from("not a manifest, but long enough to be looked at as one at all"),
    );
    const before = await world.keys();
    await expect(collector.run(sweep)).rejects.toMatchObject({ kind: "Corrupt" });
    expect(await world.keys()).toEqual(before);
  });

  it("objects of a volume without a manifest stay, and what its bases name", async () => {
    const world = new CollectorWorld();
    const volume = world.volume(1);
    await volume.segment();
    await volume.base(["alone", null, null, null]);
    volume.inFlight.clear();
    world.serveOnly();
    const before = await world.keys();
    const report = await runFor(world, 120);
    expect(report.findings.map((one) => one.problem).join()).toContain("no manifest");
    expect(await world.keys()).toEqual(before);
  });

  it("keeps keys of a shape that no Varve writes", async () => {
    const world = new CollectorWorld();
    await world.memory.put("chunks/notes.txt", Buffer.from("mine"));
    await world.memory.put("volumes/0000000000000001/readme", Buffer.from("mine"));
    const report = await runFor(world, 120);
    expect(await world.keys()).toHaveLength(2);
    expect(report.findings.some((one) => one.key === "chunks/notes.txt")).toBe(true);
  });
});

describe("things that come late", () => {
  it("a late manifest PUT of a paused archiver changes nothing, and goes", async () => {
    const world = new CollectorWorld();
    const volume = world.volume(1);
    await volume.segment();
    await volume.base(["a", "b", null, null]);
    const paused = { ...volume.present, number: 7, historyMs: 99 };
    await volume.publish();
    volume.present = { ...volume.present, archiverEpoch: 2, number: 0 };
    await volume.segment();
    await volume.base(["c", null, null, null]);
    await volume.publish({
      bases: volume.present.bases.slice(1),
      segments: volume.present.segments.slice(1),
      retainedFromLsn: 10,
    });
    await runFor(world, 60);
    // A day later the old archiver's PUT lands: it names chunks that are gone, and nobody follows it.
    await world.memory.put(manifestKey(paused), encodeManifest(paused));
    expect(await world.dangling()).toEqual([]);
    const report = await runFor(world, 12);
    expect(report.findings).toEqual([]);
    expect(await world.keys("volumes/0000000000000001/manifests/")).toEqual([manifestKey(volume.present)]);
    expect(await world.dangling()).toEqual([]);
  });

  it("a store that loses its last seconds on power loss still has all that the manifest before names", async () => {
    const world = new CollectorWorld();
    const volume = world.volume(1);
    await volume.segment();
    await volume.base(["a", "b", null, null]);
    const before = await volume.publish();
    const collector = world.collector();
    await runFor(world, 30, collector);
    const newest = await volume.publish({ bases: [], segments: volume.present.segments });
    await collector.run(sweep);
    world.clock.pass(0.9 * hour);
    await collector.run(sweep);
    // Power fails: the newest manifest was acknowledged, and is not there.
    await world.memory.remove(manifestKey(newest));
    volume.present = before;
    expect(await world.dangling()).toEqual([]);
    await runFor(world, 60, collector);
    expect(await world.dangling()).toEqual([]);
    expect(await world.keys("chunks/")).toHaveLength(2);
  });

  it("dedup against a chunk that is about to be deleted: named again in time, it stays", async () => {
    const world = new CollectorWorld();
    const volume = world.volume(1);
    await volume.segment();
    await volume.base(["shared", null, null, null]);
    await volume.publish();
    const [key = ""] = await world.keys("chunks/");
    const name = key.slice("chunks/xx/".length);
    await volume.publish({ bases: [] });
    const collector = world.collector();
    await runFor(world, 18, collector);
    world.clock.pass(12 * hour);
    // In the run that would delete it, between mark and delete, another volume publishes a base that names it.
    const other = world.volume(2);
    await other.segment();
    let published = false;
    world.store.at = async (_, operation, at) => {
      if (published || operation !== "put" || !at.startsWith("collector/state/")) return;
      published = true;
      await other.baseOf([name, null, null, null], other.present.archivedLsn);
      await other.publish();
    };
    await collector.run(sweep);
    expect(published).toBe(true);
    expect(await world.dangling()).toEqual([]);
    expect(await world.keys("chunks/")).toEqual([chunkKey(name)]);
  });

  it("uploads in flight stay, however long they take", async () => {
    const world = new CollectorWorld();
    const volume = world.volume(1);
    await volume.segment();
    await volume.publish();
    await volume.base(["slow", null, null, null]);
    await runFor(world, 120);
    await volume.publish();
    expect(await world.dangling()).toEqual([]);
  });
});

describe("one collector per bucket", () => {
  it("refuses while another holds the lease, and takes over when it did not move for ten minutes", async () => {
    const world = new CollectorWorld();
    await threeDays(world, world.volume(1));
    const one = world.collector();
    world.store.at = (_, operation, key) => {
      if (operation === "list" && key === "chunks/") throw new VarveError("Killed", "Internal", "killed");
    };
    await expect(one.run(sweep)).rejects.toThrow("killed");
    world.store.at = null;
    const two = world.collector();
    await expect(two.run(sweep)).rejects.toMatchObject({ _tag: "CollectorBusyError", kind: "Retry" });
    world.clock.pass(5 * 60_000);
    await expect(two.run(sweep)).rejects.toMatchObject({ _tag: "CollectorBusyError" });
    world.clock.pass(6 * 60_000);
    await expect(two.run(sweep)).resolves.toMatchObject({ dryRun: false });
  });

  it("one that was overtaken in the middle deletes nothing more", async () => {
    const world = new CollectorWorld();
    await threeDays(world, world.volume(1));
    const one = world.collector();
    await one.run(sweep);
    world.clock.pass(26 * hour);
    const two = world.collector();
    let overtaken = false;
    world.store.at = async (_, operation, key) => {
      if (overtaken || operation !== "put" || !key.startsWith("collector/state/")) return;
      overtaken = true;
      await two.run(sweep).catch(() => undefined);
      world.clock.pass(11 * 60_000);
      await two.run({ ...sweep, sweep: false });
    };
    await expect(one.run(sweep)).rejects.toMatchObject({ _tag: "CollectorFencedError", kind: "Fenced" });
    expect(await world.dangling()).toEqual([]);
  });
});

describe("deleted volumes", () => {
  it("can come back for seven days, then go wholly", async () => {
    const world = new CollectorWorld();
    const volume = world.volume(1);
    await threeDays(world, volume);
    await volume.publish({ deletedAtMs: world.clock.wallMs });
    world.serveOnly();
    const collector = world.collector();
    await runFor(world, 6 * 24, collector);
    expect(await world.dangling()).toEqual([]);
    expect(await world.keys("chunks/")).not.toEqual([]);
    const left = await collector.deletedSince();
    expect(left.get("0000000000000001")).toBeLessThanOrEqual(24 * hour);
    await runFor(world, 6 * 24, collector);
    expect(await world.keys()).toEqual([]);
  });

  it("undeleted in time, it is as if nothing had been", async () => {
    const world = new CollectorWorld();
    const volume = world.volume(1);
    await threeDays(world, volume);
    await volume.publish({ deletedAtMs: world.clock.wallMs });
    world.serveOnly();
    const collector = world.collector();
    await runFor(world, 6 * 24, collector);
    volume.present = {
      ...volume.present,
      lineNumber: 2,
      line: "00000000000000ee",
      number: 0,
      archiverEpoch: 1,
    };
    await volume.publish({ deletedAtMs: null });
    await runFor(world, 20 * 24, collector);
    expect(await world.dangling()).toEqual([]);
    expect(await world.keys("chunks/")).not.toEqual([]);
  });

  it("is not buried while it comes back, and not over a manifest that its archiver has published", async () => {
    const world = new CollectorWorld();
    const volume = world.volume(1);
    await threeDays(world, volume);
    await volume.publish({ deletedAtMs: world.clock.wallMs });
    world.serveOnly();
    const collector = world.collector();
    await runFor(world, 6 * 24, collector);
    world.comingBack.add("0000000000000001");
    await runFor(world, 4 * 24, collector);
    expect(await world.dangling()).toEqual([]);
    expect(await world.keys("chunks/")).not.toEqual([]);
    world.comingBack.clear();
    // A restarted archiver publishes under the very name that the burial takes, after it looked for the last time.
    const alive = {
      ...volume.present,
      archiverEpoch: volume.present.archiverEpoch + 1,
      number: 1,
      deletedAtMs: null,
    };
    let published = false;
    world.store.at = async (_, operation, key) => {
      if (published || operation !== "put" || !key.startsWith("volumes/")) return;
      published = true;
      await world.memory.put(manifestKey(alive), encodeManifest(alive));
    };
    await runFor(world, 10 * 24, collector);
    expect(published).toBe(true);
    expect(await world.dangling()).toEqual([]);
    expect(await world.keys("chunks/")).not.toEqual([]);
  });

  it("what a clone is folded from stays, until the clone is gone too", async () => {
    const world = new CollectorWorld();
    const parent = world.volume(1);
    await threeDays(world, parent);
    const origin = { volumeId: parent.present.volumeId, name: parent.present.name, lsn: 115 };
    const clone = world.volume(2, { origin, historyMs: 1000 * 24 * hour });
    await clone.segment();
    await clone.publish();
    await parent.publish({ deletedAtMs: world.clock.wallMs });
    world.serveOnly(clone);
    const collector = world.collector();
    await runFor(world, 20 * 24, collector);
    expect(await world.dangling()).toEqual([]);
    const kept = await world.keys(`volumes/${origin.volumeId}/log/`);
    expect(kept.length).toBe(1);
    expect(await world.keys(`volumes/${origin.volumeId}/bases/`)).toHaveLength(2);
    await clone.publish({ deletedAtMs: world.clock.wallMs });
    world.serveOnly();
    await runFor(world, 30 * 24, collector);
    expect(await world.keys()).toEqual([]);
  });
});

describe("snapshots that outlive the window", () => {
  it("get an exact base before their log goes, and keep it where none can be built", async () => {
    const world = new CollectorWorld();
    const volume = world.volume(1);
    await threeDays(world, volume);
    await volume.publish({ snapshots: [{ name: "keep", lsn: 25, wallTimeMs: startMs }] });
    const collector = world.collector();
    const first = await collector.run(sweep);
    expect(first.findings.map((one) => one.problem).join()).toContain("no exact base of LSN 25");
    expect(volume.published?.segments.map((one) => one.firstLsn)).toContain(21);
    world.exactBase = async (_, lsn) => {
      const base = await volume.baseOf([null, null, null, null], lsn);
      volume.present = { ...volume.present, bases: volume.present.bases.filter((one) => one !== base) };
      const objects = { stored: [], borrowedKeys: [] };
      return { ref: base, objects, isSound: () => true, end: () => undefined };
    };
    const second = await collector.run(sweep);
    expect(second.trimmed[0]?.exactBases).toEqual([25]);
    expect(volume.published?.bases.map((one) => one.s)).toContain(25);
    expect(volume.published?.segments.map((one) => one.firstLsn)).not.toContain(21);
    await runFor(world, 72, collector);
    expect(await world.dangling()).toEqual([]);
  });
});
