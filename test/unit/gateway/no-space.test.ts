/*
 * A disk that is full at each change of a data directory's names in turn: whatever call finds no room, the change says so, nothing
 * of it is left, the same command works as soon as there is room, without a restart, and a restart finds the same volumes. Log and
 * image on a full disk: test/unit/storage/full-disk.deep.test.ts; all together at random: the simulator.
 */
import { describe, expect, test } from "vitest";
import { toVarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { VolumeHost } from "../../../services/gateway/engine/volume-host.ts";
import { PastWorld } from "./past-world.ts";

type Step = (host: VolumeHost, world: PastWorld) => Promise<unknown>;

/** A short life. Each may be run again where it failed. */
const life: Readonly<Record<string, Step>> = {
  create: async (host) => host.create({ name: "disk0", sizeBytes: 4096, durability: "write" }),
  snapshot: async (host) => host.past.createSnapshot("disk0", "one"),
  clone: async (host, world) => host.past.createFrom(world.wanted("copy", "disk0", "lsn:5")),
  policy: async (host) => host.past.setPolicy("disk0", { residency: "tiered" }),
  durability: async (host) => host.setDurability("disk0", "flush"),
  rollback: async (host) => host.past.rollback("disk0", "lsn:5", false),
  "forget the snapshot": async (host) => host.past.deleteSnapshot("disk0", "one"),
  "delete the clone": async (host) => host.delete("copy"),
  delete: async (host, world) => {
    world.heldLsn = 3;
    await host.delete("disk0");
    world.heldLsn = 7;
  },
};

/** They overwrite the history file, which an archiver's tenure has made ready: a full disk refuses none of them. */
const overwriting = new Set(["snapshot", "policy", "forget the snapshot"]);

/** Time passes while it runs. */
async function untilDone(work: Promise<unknown>, world: PastWorld): Promise<void> {
  const state = { done: false };
  const end = (): void => {
    state.done = true;
  };
  work.then(end, end);
  await world.pass(0);
  for (let turn = 0; turn < 100 && !state.done; turn += 1) await world.pass(100);
  expect(state.done).toBe(true);
  await work;
}

async function requireWhole(host: VolumeHost, world: PastWorld, when: string): Promise<void> {
  const names = host.list().map((one) => one.name);
  expect(await world.directories(), when).toEqual(names);
  const states = new Map([["deleting", "settling"]]);
  const records = host.list().map(({ name, condition }) => `${name} ${states.get(condition) ?? "active"}`);
  expect(world.records(), when).toEqual(records);
}

/** Which step was refused, or null; `isOver`: it makes fewer calls than that. */
async function live(
  call: number,
  fullCalls: number,
): Promise<{ readonly step: string | null; readonly isOver: boolean }> {
  const world = new PastWorld();
  const host = await world.serving();
  world.fullAtCall = call;
  world.fullCalls = fullCalls;
  let refused: string | null = null;
  for (const [step, run] of Object.entries(life)) {
    const when = `${step}, call ${call}, full for ${fullCalls}`;
    try {
      await untilDone(run(host, world), world);
    } catch (cause) {
      const error = toVarveError(cause, step);
      expect([error.kind, error.message], when).toEqual(["Full", expect.stringContaining("ENOSPC")]);
      expect(error.hint, when).toContain("make room");
      refused = step;
      // Somebody made room; an archive that could not open opens within half a minute.
      world.fullAtCall = null;
      await world.pass(limits.archiveRetryMs);
      await untilDone(run(host, world), world);
    }
    if (world.fullAtCall === null || world.fullAtCall > 0) await requireWhole(host, world, when);
  }
  const isOver = world.fullAtCall !== null && world.fullAtCall > 0;
  world.fullAtCall = null;
  for (let look = 0; look < 3; look += 1) await world.pass(1_000);
  expect(host.list()).toEqual([]);
  await requireWhole(host, world, `in the end, call ${call}`);
  await requireWhole(await world.restart(), world, `after a restart, call ${call}`);
  return { step: refused, isOver };
}

describe("a disk without room at the n-th call", () => {
  test.each([1, 2, 1_000])(
    "for %i calls: each change is refused as a whole, and works when there is room",
    async (full) => {
      const refused = new Set<string | null>();
      for (let call = 1; ; call += 1) {
        const { step, isOver } = await live(call, full);
        if (isOver) break;
        refused.add(step);
      }
      refused.delete(null);
      expect(refused).toEqual(new Set(Object.keys(life).filter((step) => !overwriting.has(step))));
    },
  );
});
