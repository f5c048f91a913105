/*
 * A disk that is full, or fails, at each call of the way of data in turn: log, image, checkpoint, segments, manifests, bases, eviction,
 * filling, release of the log, and the close. Nothing that was acknowledged is lost, whoever was refused is served as soon as there
 * is room (after a restart at most where log or image had to stop), and what is left on disk and in the bucket is whole. The calls
 * that take a name: no-space.test.ts; all together at random: the simulator.
 */
import { describe, expect, test } from "vitest";
import { VarveError } from "#shared/domain/errors.ts";
import { blockBytes, blocks, DataPathWorld, type Trouble } from "./data-path-world.ts";

type Step = (world: DataPathWorld) => Promise<unknown>;

async function jobDone(world: DataPathWorld, id: string): Promise<void> {
  const { past } = world.opened.host;
  while (past.job(id).state === "running" && !hasStopped(world)) await world.pass(50);
  const { state, failure, note } = past.job(id);
  if (state !== "done") throw failure ?? new VarveError("NotDone", "Full", note);
}

/** Each may be run again where it failed. */
export const life: Readonly<Record<string, Step>> = {
  create: async ({ opened }) =>
    opened.host.list().length > 0 ||
    opened.host.create({ name: "disk0", sizeBytes: blocks * blockBytes, durability: "write" }),
  "write a little": async (world) => {
    await world.write(0, 3);
    await world.write(20, 4);
  },
  "apply and checkpoint": async ({ session }) => session.checkpoint(),
  archive: async ({ archive, session }) => archive.archive(session.hotLog().state().durableLsn),
  "write more than a log segment": async (world) => {
    for (let first = 0; first < blocks; first += 12) await world.write(first, 12);
  },
  "release log": async ({ archive, session }) => {
    await archive.archive(session.hotLog().state().durableLsn);
    await session.checkpoint();
  },
  "take a base and evict": async (world) => {
    const { past } = world.opened.host;
    await past.setPolicy("disk0", { residency: "tiered" });
    await jobDone(world, (await past.tier("disk0", 0)).id);
  },
  "close and open what is evicted": async (world) => reopen(world),
  "write what is evicted, and read it": async (world) => {
    await world.write(10, 2);
    await world.trim(30, 3);
    expect(await world.wrongBlock()).toBeNull();
  },
  fill: async (world) => jobDone(world, (await world.opened.host.past.fill("disk0")).id),
  "write again, close and open": async (world) => {
    await world.write(1, 12);
    await world.write(17, 12);
    await reopen(world);
  },
};

/** A clean close leaves the file as the disk, and what is in the bucket only takes no room. */
async function reopen(world: DataPathWorld): Promise<void> {
  const residency = world.session.extents.residency();
  const error = await world.stop();
  if (error === null) {
    const isWhole = residency?.localExtents === residency?.extents;
    const image = world.file(`volumes/disk0/disk.raw${isWhole ? "" : ".partial"}`);
    expect(image, "it has the name that it should have").not.toBeNull();
    if (isWhole) expect(world.wrongIn(image?.bytes ?? Buffer.alloc(0)), "the image").toBeNull();
    else expect(image?.allocatedBytes, "bytes of what is evicted").toBe(0);
  }
  await restart(world);
  if (error !== null) throw error;
}

/** Halted, or not even open: only a restart helps. */
const hasStopped = ({ opened }: DataPathWorld): boolean =>
  opened.host.list().some(({ condition }) => condition !== "serving" && condition !== "busy");

async function restart(world: DataPathWorld): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    await world.stop();
    try {
      await world.start();
      if (!hasStopped(world)) return;
    } catch (cause) {
      if (attempt === 20) throw cause;
      // Whoever could not start holds nothing.
      world.die("kill");
    }
    expect(attempt, "it starts as soon as there is room").toBeLessThan(20);
    await world.pass(1000);
  }
}

/** What only the last step's close met is not told to a client. */
function requireAllowed(error: VarveError, code: Trouble["code"], when: string): void {
  if (code === "ENOSPC" && error._tag !== "ReplicaSyncFailed")
    expect(error.kind, `${when}: ${error._tag} ${error.message}`).toBe("Full");
}

async function live(world: DataPathWorld, trouble: Trouble | null, when: string): Promise<void> {
  await restart(world);
  for (const [step, run] of Object.entries(life)) {
    for (let attempt = 1; ; attempt += 1) {
      try {
        await run(world);
        break;
      } catch (cause) {
        if (!(cause instanceof VarveError)) throw cause;
        if (trouble === null || attempt === 40) throw cause;
        if (hasStopped(world)) await restart(world);
        else requireAllowed(cause, trouble.code, `${when}: ${step}`);
        await world.pass(1000);
      }
    }
  }
}

/** What is on the disk and in the bucket counts, not what a process remembers. */
async function judge(world: DataPathWorld, when: string): Promise<void> {
  expect(await world.wrongBlock(), when).toBeNull();
  world.die("crash");
  await restart(world);
  expect(await world.wrongBlock(), `${when}, after a power cut`).toBeNull();
  const { archive, session } = world;
  await archive.archive(session.hotLog().state().durableLsn);
  await session.checkpoint();
  await world.pass(100);
  expect(archive.status(), when).toMatchObject({ state: "running", error: null });
  await reopen(world);
}

/** Each call meets one of them, its neighbours the others. */
const troubles: readonly Trouble[] = [
  { code: "ENOSPC", how: "before", forMs: 0 },
  { code: "EIO", how: "in part", forMs: 0 },
  { code: "ENOSPC", how: "before", forMs: 4000 },
  { code: "ENOSPC", how: "in part", forMs: 0 },
  { code: "EIO", how: "before", forMs: 0 },
];

/** The call that failed; null: a life makes fewer. */
async function liveWithout(call: number): Promise<string | null> {
  const trouble = troubles[call % troubles.length] as Trouble;
  const world = new DataPathWorld(call, trouble);
  let wasMet = true;
  const run = async (): Promise<void> => {
    await live(world, trouble, `call ${call}`);
    wasMet = world.wasMet;
    world.heal();
    await judge(world, `call ${call}`);
  };
  try {
    await world.until(run(), `call ${call}`);
  } catch (cause) {
    const { code, how, forMs } = trouble;
    const what = `${code} ${how}, for ${forMs} ms, at call ${call}, ${world.calls[call - 1]}`;
    throw new Error(`${what}: ${String(cause)}\n${world.notes.join("\n")}`, { cause });
  } finally {
    world.end();
  }
  return wasMet ? (world.calls[call - 1] ?? "") : null;
}

describe("a disk that fails at the n-th call on the way of data", () => {
  test("nothing acknowledged is lost, all goes on, and nothing half-made stays", async () => {
    const met = new Set<string>();
    for (let call = 1; ; call += 1) {
      const failed = await liveWithout(call);
      if (failed === null) break;
      met.add(failed.split(" ", 1)[0] ?? "");
    }
    const calls = ["writeDurable", "write", "sync", "allocate", "applyAll", "replaceWhole", "rename", "put"];
    expect([...met]).toEqual(expect.arrayContaining([...calls, "open", "syncDirectory", "remove"]));
  });
});
