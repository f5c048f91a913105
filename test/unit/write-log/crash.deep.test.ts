// The embedded log under power cuts and kills at every moment of appends, rotation, release, repair and recovery, with lost,
// torn and reordered unsynced sectors, failed writes and failed syncs. log-world.ts is the oracle.
// A failing seed stands in the error's message.
import { describe, expect, test } from "vitest";
import { LogWorld } from "./log-world.ts";

/** One life: random work, ended by a crash, a kill or a close at a random moment. */
async function live(world: LogWorld): Promise<void> {
  const { random, scheduler } = world;
  const steps = random.integer(1, 60);
  for (let step = 0; step < steps && world.listener.error === null; step += 1) {
    const action = random.weighted({ append: 12, run: 8, sync: 2, release: 1, check: 1 });
    if (action === "append") {
      const batches = random.integer(1, 6);
      for (let batch = 0; batch < batches; batch += 1) {
        world.append(random.integer(1, random.chance(0.2) ? 40_000 : 6_000), random.chance(0.4));
      }
    } else if (action === "run") await scheduler.run(random.integer(1, 25));
    else if (action === "sync") world.writer.sync().catch(() => undefined);
    else if (action === "release") {
      const beforeLsn = random.integer(1, world.listener.durableLsn + 2);
      world.releasedBefore = Math.max(world.releasedBefore, beforeLsn);
      world.writer.release(beforeLsn).catch(() => undefined);
    } else if (world.disk.faults.syncError === 0) await world.check();
    world.note();
  }
}

async function endLife(world: LogWorld): Promise<void> {
  const end = world.random.weighted({ crash: 6, kill: 3, close: 1 });
  if (end === "close") {
    await world.scheduler.until(world.writer.close(), "close");
    world.note();
  }
  if (end === "kill") world.kill();
  else if (end === "crash" || world.random.chance(0.5)) world.crash();
  const faulty = world.disk.faults.syncError > 0 || world.disk.faults.writeError > 0;
  // After a failed sync the pages may be gone before the repair is through: only what was durable is promised then.
  if (faulty) world.storedLsn = world.durableLsn;
}

/** Opens, now and then cut short at any step of recovery, now and then failing by a fault. */
async function openAfterCrash(world: LogWorld): Promise<void> {
  const { random, scheduler, disk } = world;
  const durability = random.chance(0.5) ? "write" : "flush";
  while (random.chance(0.4)) {
    const opening = world.startOpen(durability, knownLsn(world));
    await scheduler.run(random.integer(1, 60));
    opening.catch(() => undefined);
    if (random.chance(0.7)) world.crash();
    else world.kill();
  }
  const faults = { ...disk.faults };
  if (random.chance(0.7)) Object.assign(disk.faults, { writeError: 0, syncError: 0, nameError: 0 });
  try {
    await world.open(durability, knownLsn(world));
  } catch (error) {
    expect(faults.writeError + faults.syncError + faults.nameError).toBeGreaterThan(0);
    expect(error).toMatchObject({ kind: "Internal" });
    Object.assign(disk.faults, { writeError: 0, syncError: 0, nameError: 0 });
    world.crash();
    await world.open(durability, knownLsn(world));
  }
  Object.assign(disk.faults, faults);
}

/** What a checkpoint may know: at least all that was released, at most what is durable. */
function knownLsn(world: LogWorld): number {
  const least = Math.min(world.releasedBefore - 1, world.durableLsn);
  return world.random.integer(least, world.durableLsn + 1);
}

async function runSeed(seed: number): Promise<void> {
  const world = new LogWorld(seed);
  const { random, disk } = world;
  await world.open(random.chance(0.5) ? "write" : "flush");
  if (seed % 2 === 1) {
    disk.faults.writeError = random.pick([0, 0.005, 0.02]);
    disk.faults.syncError = random.pick([0, 0.05, 0.2]);
    disk.faults.nameError = random.pick([0, 0.02]);
  }
  for (let life = 0; life < 6; life += 1) {
    await live(world);
    await endLife(world);
    await openAfterCrash(world);
  }
}

describe("the embedded log after crashes", () => {
  for (let first = 1; first <= 60; first += 10) {
    const title = `is a prefix that holds all that was promised: seeds ${first} to ${first + 9}`;
    test(title, { timeout: 60_000 }, async () => {
      for (let seed = first; seed < first + 10; seed += 1) {
        try {
          await runSeed(seed);
        } catch (error) {
          throw new Error(`seed ${seed}`, { cause: error });
        }
      }
    });
  }
});
