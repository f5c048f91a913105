/*
 * One seed from the first byte to the verdict: makes a volume, lives through several process lives with everything that may
 * end one, opens again after each, and lets the oracle judge what is there. Called by simulate.ts, simulation.test.ts and
 * the mutation check. A seed that fails throws nothing: its result says what was wrong.
 */
import { checkpointPathOf } from "#shared/domain/data-layout.ts";
import { toVarveError, type VarveError } from "#shared/domain/errors.ts";
import { type Damage, damageAtRest, differenceOf, snapshotOf } from "./damage.ts";
import { judgeAllocation, probe, readWholeDisk } from "./inspection.ts";
import { Life } from "./life.ts";
import { faithful, type Mutant } from "./mutant.ts";
import { createVolume } from "./wiring.ts";
import { World } from "./world.ts";

export interface SeedResult {
  readonly seed: number;
  /** Null: nothing was wrong. */
  readonly failure: Error | null;
  readonly steps: number;
  readonly counts: ReadonlyMap<string, number>;
}

export async function runSeed(
  seed: number,
  options: {
    readonly mutant?: Mutant;
    readonly print?: (line: string) => void;
    readonly watchesSteps?: boolean;
  } = {},
): Promise<SeedResult> {
  const { mutant = faithful, print = null, watchesSteps = true } = options;
  const world = new World(seed, mutant, print, watchesSteps);
  const stray = (cause: unknown): void => {
    world.fail(`nobody handled: ${cause instanceof Error ? cause.message : String(cause)}`, cause);
  };
  process.on("unhandledRejection", stray);
  let failure: Error | null = null;
  try {
    await new SeedRun(world).run();
    world.throwFailure();
  } catch (cause) {
    failure = world.failure ?? (cause instanceof Error ? cause : new Error(String(cause)));
  } finally {
    process.off("unhandledRejection", stray);
    world.end();
  }
  if (failure !== null && world.failure === null) world.note(`FAILED: ${failure.message}`);
  return { seed, failure, steps: world.scheduler.steps, counts: world.counts };
}

type Ending = "close" | "close busy" | "close torn" | "kill" | "power";

class SeedRun {
  private readonly world: World;
  /** Since the last judged opening the power failed, or the disk answered errors: only what was promised must be there. */
  private cacheLost = false;

  constructor(world: World) {
    this.world = world;
  }

  async run(): Promise<void> {
    const { world } = this;
    const { random, plan } = world;
    await world.scheduler.until(createVolume(world), "creating the volume");
    // Creation answered: it survives everything from now on.
    if (random.chance(0.3)) world.disk.crash();
    let { durability } = plan;
    for (let count = 0; count < plan.lives; count++) {
      if (random.chance(0.1)) durability = durability === "write" ? "flush" : "write";
      const damage = random.chance(0.15) ? this.damageWhileOff() : null;
      const life = await this.openLife(durability, damage, count > 0);
      await this.judge(life);
      await this.live(life);
      await this.end(life);
    }
    const last = await this.openLife(durability, null, false);
    await this.judge(last);
    await this.closeCleanly(last);
    world.disk.crash();
    this.checkImage("after a power loss behind a clean close");
  }

  /** The machine is off, so that nothing of the disk's content is under way, and a bit turns over. */
  private damageWhileOff(): Damage | null {
    this.losePower();
    const { world } = this;
    return damageAtRest(world, checkpointPathOf(world.paths.image), world.random);
  }

  private async openLife(
    durability: "write" | "flush",
    damage: Damage | null,
    mayFail: boolean,
  ): Promise<Life> {
    const { world } = this;
    const { random } = world;
    if (damage !== null) return await this.openDamaged(durability, damage);
    for (let attempt = 0; ; attempt++) {
      const fate =
        mayFail && attempt < 4
          ? random.weighted({ none: 6, kill: 1, power: 2, faults: 1.5 })
          : ("none" as const);
      const life = new Life(world, durability);
      if (fate === "none") {
        await this.openWell(life);
        return life;
      }
      world.count(`opening ended by ${fate}`);
      if (fate === "faults") {
        if (await this.openUnderFaults(life)) return life;
      } else {
        world.note(`opening, to be ended by ${fate}`);
        let ended = false;
        const settle = (): void => {
          ended = true;
        };
        life.open().then(settle, settle);
        await world.scheduler.run(random.integer(0, 80), () => !ended);
        this.endProcess(life, fate);
      }
    }
  }

  private async openWell(life: Life): Promise<void> {
    try {
      await this.world.scheduler.until(life.open(), "opening the volume");
    } catch (cause) {
      this.world.throwFailure();
      throw new Error(`opening failed without a cause: ${toVarveError(cause, "open").message}`, { cause });
    }
  }

  /** The disk answers errors, or has no room, while the volume is opened. True where it came up nevertheless. */
  private async openUnderFaults(life: Life): Promise<boolean> {
    const { world } = this;
    const { random, disk } = world;
    life.troubled = true;
    if (random.chance(0.3)) disk.quotaBytes = disk.usedBytes + random.integer(0, 20) * 4096;
    else {
      const chance = random.pick([0.02, 0.1]);
      Object.assign(disk.faults, {
        readError: chance,
        writeError: chance,
        syncError: chance,
        nameError: chance,
      });
    }
    const error = await this.tryOpening(life);
    Object.assign(disk.faults, { readError: 0, writeError: 0, syncError: 0, nameError: 0 });
    disk.quotaBytes = world.plan.diskBytes;
    if (error === null) return true;
    world.note(`opening failed: ${error.message}`);
    if (error.kind === "Corrupt" || error.kind === "Invalid") {
      throw new Error(`a disk error was taken for ${error.kind}: ${error.message}`, { cause: error });
    }
    // The same process may try again: nothing is left open or locked.
    const next = random.weighted({ again: 2, kill: 1, power: 1 });
    if (next === "again") life.forsake();
    else this.endProcess(life, next);
    return false;
  }

  /** Corrupt, and nothing changed; or open, and then the content is right. */
  private async openDamaged(durability: "write" | "flush", damage: Damage): Promise<Life> {
    const { world } = this;
    const before = snapshotOf(world);
    const life = new Life(world, durability);
    const error = await this.tryOpening(life);
    if (error === null) {
      world.count("damage was harmless");
      damage.undo();
      return life;
    }
    world.note(`refused: ${error.message}`);
    if (error.kind !== "Corrupt") {
      throw new Error(`damage (${damage.what}) gave ${error.kind}: ${error.message}`, { cause: error });
    }
    const changed = differenceOf(before, snapshotOf(world));
    if (changed !== "") throw new Error(`damage (${damage.what}) was reported, but ${changed}`);
    world.count("damage was reported");
    damage.undo();
    life.forsake();
    const again = new Life(world, durability);
    await this.openWell(again);
    return again;
  }

  private async tryOpening(life: Life): Promise<VarveError | null> {
    try {
      await this.world.scheduler.until(life.open(), "opening the volume");
      return null;
    } catch (cause) {
      this.world.throwFailure();
      return toVarveError(cause, "open");
    }
  }

  /** What a client finds after a start: a prefix that holds everything promised. */
  private async judge(life: Life): Promise<void> {
    const { oracle } = this.world;
    const content = await readWholeDisk(life);
    const required = this.cacheLost ? oracle.promisedPrefix : oracle.answeredPrefix;
    const verdict = oracle.judge(content, required);
    if (verdict.prefix < 0) throw new Error(`after opening: ${verdict.why}`);
    this.world.note(`found operations [0, ${verdict.prefix}), required ${required}`);
    this.world.count("openings judged");
    this.world.count("operations lost without promise", oracle.submitted - verdict.prefix);
    oracle.settle(verdict.prefix);
    judgeAllocation(life, content);
    this.cacheLost = false;
  }

  private async live(life: Life): Promise<void> {
    const { world } = this;
    const { random, plan } = world;
    // Now and then what recovery read and served is all there is when the life ends.
    const phases = random.chance(0.15) ? 0 : random.integer(1, 4);
    for (let phase = 0; phase < phases && !life.halted; phase++) {
      life.startClients(random.integer(1, plan.clientsMax + 1));
      life.startEvents();
      await life.run(random.integer(10, plan.stepsMax));
      if (world.powerFails) return;
      if (phase + 1 === phases && !life.halted) return;
      await life.quiesce();
      if (life.halted) return;
      await this.judgeQuiet(life);
      if (random.chance(0.2)) await life.resizeAlone();
      if (random.chance(0.4)) await world.scheduler.pass(random.integer(0, 45_000));
      if (!plan.diskIsSmall && random.chance(0.5)) await probe(life);
    }
    if (life.halted) await life.quiesce();
  }

  /** Nothing is under way: the disk is every operation that was answered, byte for byte. */
  private async judgeQuiet(life: Life): Promise<void> {
    const { oracle } = this.world;
    const content = await readWholeDisk(life);
    const verdict = oracle.judge(content, oracle.submitted);
    if (verdict.prefix < 0) throw new Error(`at rest: ${verdict.why}`);
    judgeAllocation(life, content);
  }

  private async end(life: Life): Promise<void> {
    const { world } = this;
    const ending = world.powerFails
      ? "power"
      : life.halted
        ? world.random.weighted<Ending>({ close: 3, "close busy": 0, "close torn": 1, kill: 2, power: 2 })
        : world.random.weighted<Ending>({ close: 4, "close busy": 2, "close torn": 2, kill: 5, power: 7 });
    world.note(`ends: ${ending}`);
    world.count(`life ended: ${life.halted ? "halted, " : ""}${ending}`);
    if (ending === "close") {
      await life.quiesce();
      await this.closeCleanly(life);
      if (world.random.chance(0.5)) this.losePower();
    } else if (ending === "close busy") {
      life.disconnectAll();
      await this.closeCleanly(life);
    } else if (ending === "close torn") {
      life.disconnectAll();
      life.beginToClose();
      await world.scheduler.run(world.random.integer(0, 60));
      this.endProcess(life, world.random.chance(0.7) ? "power" : "kill");
    } else {
      this.endProcess(life, ending);
    }
  }

  private async closeCleanly(life: Life): Promise<void> {
    const { world } = this;
    const { oracle } = world;
    await life.close();
    await life.everyoneAnswered();
    this.checkMemory(life);
    const clean = !life.halted;
    // What was not answered is in the image or not; what was answered is.
    if (clean) oracle.promise(oracle.answeredPrefix);
    this.endProcess(life, "kill");
    if (clean) {
      this.checkImage("after a clean close");
      if (world.random.chance(0.5)) {
        world.disk.crash();
        this.checkImage("after a power loss behind a clean close");
      }
    }
  }

  /** The image file is the disk: the fold of a prefix with all that was answered. */
  private checkImage(when: string): void {
    const { world } = this;
    const bytes = world.fileBytes(world.paths.image);
    if (bytes === null) throw new Error(`there is no image file ${when}`);
    const verdict = world.oracle.judge(bytes, world.oracle.answeredPrefix);
    if (verdict.prefix < 0) throw new Error(`the image file ${when}: ${verdict.why}`);
    world.count("image files judged");
  }

  private checkMemory(life: Life): void {
    const { pool, ballastBytes } = life.opened;
    const { lentBytes } = pool.statistics();
    const { promisedBytes } = life.opened.reserve.status();
    if (promisedBytes !== 0) throw new Error(`a close left ${promisedBytes} bytes of disk promised`);
    if (lentBytes !== ballastBytes) {
      throw new Error(`a close left ${lentBytes - ballastBytes} bytes of payload memory lent out`);
    }
  }

  private endProcess(life: Life, how: "kill" | "power"): void {
    const { world } = this;
    life.end();
    // A disk that answers errors may have dropped what was stored and not yet synced.
    if (life.sawFaults) this.cacheLost = true;
    if (how === "kill") world.disk.kill();
    else this.losePower();
    world.processEnded();
    world.powerFails = false;
    Object.assign(world.disk.faults, {
      coldRead: 0,
      shortRead: 0,
      readError: 0,
      writeError: 0,
      syncError: 0,
      nameError: 0,
    });
    world.disk.quotaBytes = world.plan.diskBytes;
  }

  private losePower(): void {
    this.world.disk.crash();
    this.cacheLost = true;
  }
}
