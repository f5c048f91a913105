/*
 * Deleted volumes whose files stay until the bucket holds all of them (docs/specs/volume-host.md, "Deleting"): what they refuse, how
 * they come back and when they go, and the process ending before each step of it. What a bucket loses meanwhile: the simulator.
 */
import { beforeEach, describe, expect, test } from "vitest";
import { limits } from "#shared/domain/limits.ts";
import type { VolumeHost } from "../../../services/gateway/engine/volume-host.ts";
import { PastWorld } from "./past-world.ts";

const names = (host: VolumeHost): readonly string[] => host.list().map((one) => one.name);
/** As often as a deleted volume is looked at. */
const lookMs = 1_000;
let world: PastWorld;

/** One volume, deleted, of a bucket that does not hold it yet. */
async function deleted(): Promise<VolumeHost> {
  const host = await world.serving("disk0");
  world.heldLsn = 3;
  await host.delete("disk0");
  return host;
}

beforeEach(() => {
  world = new PastWorld();
});

describe("a deleted volume that the bucket does not hold yet", () => {
  test("keeps its files and its name, says until when, and nobody gets to it", async () => {
    const host = await deleted();
    expect(await world.directories()).toEqual(["disk0"]);
    expect(host.show("disk0")).toMatchObject({ condition: "deleting", heldInMs: 300_000, failure: null });
    expect(names(host)).toEqual(["disk0"]);
    expect(host.exports.list()).toEqual([]);
    const refusal = {
      _tag: "VolumeSettlingError",
      kind: "Retry",
      message: "volume disk0 was deleted; its files stay until the bucket holds all of it, in about 300 s",
      hint: "Its name is free then; varve volume show disk0 says when. To have it back: varve volume undelete disk0.",
    };
    await expect(host.exports.open("disk0")).rejects.toMatchObject(refusal);
    await expect(host.exports.open("disk0@lsn:3")).rejects.toMatchObject(refusal);
    const wanted = { name: "disk0", sizeBytes: 4096, durability: "write" } as const;
    await expect(host.create(wanted)).rejects.toMatchObject(refusal);
    await expect(host.past.createFrom(world.wanted("copy", "disk0", "lsn:5"))).rejects.toMatchObject(refusal);
    await expect(host.resize("disk0", 8192, false)).rejects.toMatchObject(refusal);
    await expect(host.delete("disk0")).rejects.toMatchObject(refusal);
    expect(world.present("disk0").deletedAtMs).not.toBeNull();
  });

  test("goes as soon as the bucket holds it", async () => {
    const host = await deleted();
    for (let look = 0; look < 20; look++) await world.pass(lookMs);
    expect(names(host)).toEqual(["disk0"]);
    world.heldLsn = 7;
    await world.pass(lookMs);
    expect(names(host)).toEqual([]);
    expect(await world.directories()).toEqual([]);
    await host.create({ name: "disk0", sizeBytes: 4096, durability: "write" });
    expect(host.show("disk0").condition).toBe("serving");
  });

  test("comes back as it is, by name or id, and the bucket is told", async () => {
    const host = await deleted();
    const { id } = host.show("disk0");
    await expect(host.settling.takeBack("disk0", "other")).rejects.toMatchObject({
      message: "volume disk0 comes back as disk0 only, not as other: its files are still here",
    });
    expect(await host.settling.takeBack("other", undefined)).toBeNull();
    world.calls.length = 0;
    expect(await host.settling.takeBack(id, undefined)).toMatchObject({ name: "disk0", lsn: 7 });
    expect(world.calls).toEqual(["publish disk0"]);
    expect(host.show("disk0").condition).toBe("serving");
    world.heldLsn = 7;
    await world.pass(lookMs);
    expect(names(await world.restart())).toEqual(["disk0"]);
    expect(await world.directories()).toEqual(["disk0"]);
  });

  test("waits beside a bucket that is away after a start, and is told of the deletion again where it lost that", async () => {
    await deleted();
    world.manifestOf("disk0", { archivedLsn: 7, deletedAtMs: null });
    world.hanging.add("archiver disk0");
    const starting = world.restart();
    await world.pass(limits.archiveOpenMs);
    const host = await starting;
    expect(host.show("disk0")).toMatchObject({ condition: "deleting", heldInMs: null });
    world.hanging.clear();
    const again = await world.restart();
    await world.pass(0);
    expect(world.present("disk0").deletedAtMs).not.toBeNull();
    expect(names(again)).toEqual(["disk0"]);
    world.heldLsn = 7;
    await world.pass(lookMs);
    expect(names(again)).toEqual([]);
  });

  test("whose files could not be removed can't come back from them, and is removed later", async () => {
    const host = await deleted();
    const disk = world.disk();
    const removeTree = disk.removeTree.bind(disk);
    disk.removeTree = async () => {
      throw new Error("EIO");
    };
    world.heldLsn = 7;
    await world.pass(lookMs);
    expect(await host.settling.takeBack("disk0", undefined)).toBeNull();
    expect(names(host)).toEqual(["disk0"]);
    disk.removeTree = removeTree;
    await world.pass(lookMs);
    expect(names(host)).toEqual([]);
    expect(await world.directories()).toEqual([]);
  });

  test("that was rescued elsewhere says so, and goes when it is deleted once more", async () => {
    const host = await deleted();
    world.fence("disk0");
    await world.pass(lookMs);
    expect(host.show("disk0")).toMatchObject({ condition: "deleting", failure: { kind: "Fenced" } });
    await expect(host.exports.open("disk0")).rejects.toMatchObject({
      hint: expect.stringContaining("To remove its files as they are: varve volume delete disk0."),
    });
    await host.delete("disk0");
    expect(names(host)).toEqual([]);
    expect(await world.directories()).toEqual([]);
  });
});

describe("the process ends before each step", () => {
  test("of a deletion and of what follows: the volume lives, or the next start goes on to the end", async () => {
    const seen = { serving: 0, deleting: 0, gone: 0 };
    for (let call = 1; ; call += 1) {
      world = new PastWorld();
      const first = await world.serving("disk0");
      world.heldLsn = 3;
      world.crashAtCall = call;
      let answered = false;
      const deleting = first.delete("disk0").then(
        () => {
          answered = true;
        },
        () => undefined,
      );
      await world.pass(0);
      await deleting;
      world.heldLsn = 7;
      await world.pass(lookMs);
      const ended = answered && names(first).length === 0 && (await world.directories()).length === 0;
      world.heldLsn = 3;
      const host = await world.restart();
      await world.pass(0);
      const condition = host.list()[0]?.condition ?? "gone";
      seen[condition as keyof typeof seen] += 1;
      // An answer is never taken back, whatever became of the process behind it.
      if (answered) expect(condition, `call ${call}`).not.toBe("serving");
      const isDeleted = (world.present("disk0").deletedAtMs ?? null) !== null;
      expect(isDeleted, `call ${call}: ${condition}`).toBe(condition !== "serving");
      world.heldLsn = 7;
      await world.pass(lookMs);
      const left = condition === "serving" ? ["disk0"] : [];
      expect(names(host), `call ${call}`).toEqual(left);
      expect(await world.directories(), `call ${call}`).toEqual(left);
      if (ended) break;
    }
    expect(seen).toEqual({
      serving: expect.toSatisfy((count: number) => count > 1),
      deleting: expect.toSatisfy((count: number) => count > 0),
      gone: expect.toSatisfy((count: number) => count > 1),
    });
  });
});
