/*
 * One seed of the world with a past, from the first byte to the verdict: makes a volume, lives through process lives with
 * everything that may end one, and compares disks, image files, points of the past and the bucket with the ledgers. Called by
 * ../simulate.ts, simulation.test.ts and the mutation check. Its result says what was wrong.
 */
import { Histories } from "#shared/adapters/history/histories.ts";
import { openSimulatedObjectStore } from "#shared/adapters/object-store/simulated.ts";
import { dataLayout, volumePaths } from "#shared/domain/data-layout.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { openFrame } from "#shared/formats/object-frame.ts";
import type { SeedResult } from "../run-seed.ts";
import { judgeScrub } from "./past-housekeeping.ts";
import { judgeImageFile, judgeInjured, judgePoints, judgePresent } from "./past-judge.ts";
import { PastLife } from "./past-life.ts";
import { faithfulPast, type PastMutant } from "./past-mutant.ts";
import { dataDirectory } from "./past-process.ts";
import { PastWorld } from "./past-world.ts";

export async function runPastSeed(
  seed: number,
  options: { readonly mutant?: PastMutant; readonly print?: (line: string) => void } = {},
): Promise<SeedResult> {
  const { mutant = faithfulPast, print = null } = options;
  const world = new PastWorld(seed, mutant, print);
  const stray = (cause: unknown): void => {
    world.fail(`nobody handled: ${cause instanceof Error ? cause.message : String(cause)}`, cause);
  };
  process.on("unhandledRejection", stray);
  let failure: Error | null = null;
  try {
    await new PastRun(world).run();
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

type Ending = "close" | "close torn" | "kill" | "power" | "power everywhere" | "machine lost";

class PastRun {
  private readonly world: PastWorld;
  /** Since the last opening the power failed: only what was promised must be there. */
  private powerLost = false;

  constructor(world: PastWorld) {
    this.world = world;
  }

  async run(): Promise<void> {
    const { world } = this;
    const { plan } = world;
    let life = await this.openLife();
    await world.scheduler.until(
      life.opened.host.create({
        name: "disk0",
        sizeBytes: plan.sizeBytes,
        durability: world.random.chance(0.5) ? "write" : "flush",
        policy: { historyMs: plan.historyMs },
      }),
      "creating the volume",
    );
    for (const { ledger } of life.serving) ledger.made = true;
    for (let count = 0; count < plan.lives; count++) {
      if (count > 0) {
        life = await this.openLife();
        await this.judgeOpened(life);
      }
      await this.live(life);
      await this.end(life);
    }
    if (world.random.chance(0.5)) await this.judgeDamaged();
    const last = await this.openLife();
    await this.judgeOpened(last);
    await this.judgeEverything(last);
    await this.closeCleanly(last);
  }

  /** Between two processes an object is damaged, or gone: points that need it say so, all others are right. */
  private async judgeDamaged(): Promise<void> {
    const { world } = this;
    const { random, bucket, watch, scheduler } = world;
    if (!watch.nothingLost) return;
    for (let count = 0; count < 3; count++) {
      const keys = watch.neededKeys();
      if (keys.length === 0) return;
      const key = random.pick(keys);
      const before = bucket.content(key);
      if (before === null) return;
      watch.injured.add(key);
      const isLost = random.chance(0.3);
      world.note(`${isLost ? "lost" : "damaged"}: ${key}`);
      if (isLost) bucket.lose(key);
      else bucket.damage(key);
      const objects = openSimulatedObjectStore(bucket, scheduler.clock, random.fork());
      const histories = new Histories({
        store: objects,
        clock: scheduler.clock,
        openFrame: async (stored, frame) => openFrame(stored, frame),
      });
      for (const ledger of world.ledgers.values()) {
        if (watch.present.has(ledger.id) && !ledger.deleted) await judgeInjured(world, histories, ledger);
      }
      await scheduler.until(histories.close(), "closing the reader");
      bucket.store(key, before, false);
      watch.injured.delete(key);
    }
  }

  /** Opens; some openings are cut short, others find the bucket away. */
  private async openLife(): Promise<PastLife> {
    const { world } = this;
    const { random, scheduler } = world;
    for (let attempt = 0; ; attempt++) {
      const life = new PastLife(world, !this.powerLost);
      const fate = attempt < 3 ? random.weighted({ well: 7, away: 1, kill: 1, power: 1 }) : "well";
      world.note(`opening: ${fate}`);
      if (fate === "away") {
        world.bucket.faults.away = true;
        world.bucketTroubled();
      }
      if (fate === "well" || fate === "away") {
        await scheduler.until(life.open(), "opening the machine");
        world.bucket.faults.away = false;
        world.bucketTroubled();
        this.powerLost = false;
        return life;
      }
      world.count(`opening ended by ${fate}`);
      let ended = false;
      const settle = (): void => {
        ended = true;
      };
      life.open().then(settle, settle);
      await scheduler.run(random.integer(0, 300), () => !ended);
      world.throwFailure();
      this.endProcess(life, fate);
    }
  }

  /** What clients find after a start, on every volume that was there. */
  private async judgeOpened(life: PastLife): Promise<void> {
    const { world } = this;
    const names = life.serving.map(({ name }) => name);
    for (const ledger of world.ledgers.values()) {
      const must = ledger.made && !ledger.deleted && !ledger.unsure;
      const isThere = names.includes(ledger.name);
      if (must && !isThere) throw new Error(`${ledger.name} is gone`);
      if (ledger.unsure) ledger.deleted = !isThere;
      ledger.unsure = false;
    }
    for (const volume of life.serving) {
      await this.unlessLost("a disk", async () => judgePresent(life, volume));
      const found = life.opened.host.past.snapshots(volume.name);
      for (const [name, lsn] of volume.ledger.snapshots) {
        if (!found.some((one) => one.name === name && one.lsn === lsn)) {
          throw new Error(`snapshot ${name} of ${volume.name} (LSN ${lsn}) is gone`);
        }
      }
    }
  }

  private async live(life: PastLife): Promise<void> {
    const { world } = this;
    const { random, plan } = world;
    const phases = random.integer(1, 4);
    for (let phase = 0; phase < phases; phase++) {
      life.startClients(random.integer(1, plan.clientsMax + 1));
      await life.run(random.integer(10, plan.stepsMax));
      // What halted is read again from its log by the next process.
      if (life.haltedBy !== null) return;
      if (phase + 1 === phases) return;
      await life.quiesce();
      for (const volume of life.serving) {
        await this.unlessLost("a disk", async () => judgePresent(life, volume));
        volume.ledger.beginSession();
      }
      if (random.chance(0.5)) await this.unlessLost("points", async () => this.judgeSample(life));
      if (random.chance(0.4)) await this.unlessLost("a scrub", async () => judgeScrub(life));
      if (random.chance(0.6)) await world.scheduler.pass(random.integer(0, 90_000));
    }
  }

  private async end(life: PastLife): Promise<void> {
    const { world } = this;
    const drawn = world.random.weighted<Ending>({
      close: 3,
      "close torn": 2,
      kill: 4,
      power: 4,
      "power everywhere": 3,
      "machine lost": world.watch.lost.size === 0 ? 2 : 0,
    });
    const ending = life.haltedBy !== null && drawn.startsWith("close") ? "kill" : drawn;
    world.note(`ends: ${ending}`);
    world.count(`life ended: ${ending}`);
    switch (ending) {
      case "close":
        await life.quiesce();
        await this.closeCleanly(life);
        return;
      case "close torn":
        life.beginToClose();
        await world.scheduler.run(world.random.integer(0, 200));
        this.endProcess(life, world.random.chance(0.5) ? "power" : "kill");
        return;
      case "power everywhere":
        this.endProcess(life, "power");
        world.watch.powerLoss();
        return;
      case "machine lost":
        this.endProcess(life, "kill");
        await this.rescue();
        return;
      case "kill":
      case "power":
      default:
        this.endProcess(life, ending === "kill" ? "kill" : "power");
    }
  }

  /**
   * The machine is gone; another one begins with what the bucket has. It does so a settle time later: what a bucket then takes back of
   * what it had answered to the lost machine nobody has any more, and nothing could bring it back.
   */
  private async rescue(): Promise<void> {
    const { world } = this;
    const { random, scheduler } = world;
    await scheduler.pass(world.plan.settleMs + 1);
    world.disk = world.newDisk();
    world.shared?.makeRoom();
    const reached = new Map<string, number>();
    for (let attempt = 0; ; attempt++) {
      const life = new PastLife(world, false);
      world.note("rescue");
      await scheduler.until(life.prepare(), "opening an empty machine");
      const work = life.opened.rescue(world).then((all) => {
        for (const [id, lsn] of all) reached.set(id, lsn);
      });
      if (attempt < 2 && random.chance(0.3)) {
        let ended = false;
        const settle = (): void => {
          ended = true;
        };
        work.then(settle, settle);
        await scheduler.run(random.integer(0, 200), () => !ended);
        this.endProcess(life, random.chance(0.5) ? "kill" : "power");
        world.throwFailure();
        continue;
      }
      await scheduler.until(work, "a rescue");
      await life.close();
      this.endProcess(life, "kill");
      break;
    }
    this.powerLost = true;
    this.judgeRescued();
  }

  /** Everything that the bucket held is there. */
  private judgeRescued(): void {
    const { world } = this;
    for (const ledger of world.ledgers.values()) {
      const present = world.watch.present.get(ledger.id)?.manifest ?? null;
      if (present === null) {
        if (ledger.heldLsn > 0 && !ledger.unsure && !ledger.deleted) {
          throw new Error(`${ledger.name} was held up to LSN ${ledger.heldLsn} and is not in the bucket`);
        }
        ledger.deleted = true;
        continue;
      }
      ledger.deleted = present.deletedAtMs !== null;
      const lsn = present.archivedLsn;
      if (lsn < ledger.heldLsn) {
        throw new Error(
          `the rescue of ${ledger.name} reached LSN ${lsn}, but LSN ${ledger.heldLsn} was held`,
        );
      }
      world.count("entries lost with their machine", ledger.lastLsn - lsn);
      ledger.cutTo(lsn);
    }
    world.count("machines lost");
  }

  private async closeCleanly(life: PastLife): Promise<void> {
    const { world } = this;
    const { volumes } = life.opened;
    await life.close();
    this.endProcess(life, "kill");
    if (world.random.chance(0.5)) world.disk.crash();
    for (const { name, ledger } of volumes.values()) {
      if (ledger.deleted) continue;
      // Under this name the image is whole; with remote extents it has another.
      judgeImageFile(world, ledger, volumePaths(dataDirectory, name).image);
      if (ledger.name !== name)
        throw new Error(`${dataLayout.volumes}/${name} has the ledger of ${ledger.name}`);
    }
  }

  private endProcess(life: PastLife, how: "kill" | "power"): void {
    const { world } = this;
    for (const ledger of world.ledgers.values()) {
      const isOfDeletion = (what: string): boolean =>
        what.startsWith("delete") && what.endsWith(` of ${ledger.name}`);
      ledger.unsure ||= life.operations.busy.some(isOfDeletion);
    }
    life.end();
    world.bucket.kill();
    if (how === "kill") world.disk.kill();
    else {
      world.disk.crash();
      this.powerLost = true;
    }
    // A disk that answered errors may have lost what was not promised.
    if (world.shared?.wasFull === true) this.powerLost = true;
    if (world.shared !== null) world.shared.wasFull = false;
    world.shared?.makeRoom();
    world.processEnded();
  }

  /** A few points of each volume, as the served volume opens them. */
  private async judgeSample(life: PastLife): Promise<void> {
    const { world } = this;
    for (const { ledger } of life.serving) {
      const history = await world.scheduler.until(life.opened.histories.find(ledger.id), "finding a history");
      const range = await world.scheduler.until(history.range(), "the range of a history");
      if (range.toLsn !== ledger.lastLsn) {
        throw new Error(`the history of ${ledger.name} ends at ${range.toLsn}, its log at ${ledger.lastLsn}`);
      }
      const lsns = new Set([...ledger.snapshots.values(), ledger.lastLsn]);
      for (let count = 0; count < 8; count++) {
        lsns.add(world.random.integer(Math.max(1, range.fromLsn), ledger.lastLsn + 1));
      }
      await judgePoints(
        world,
        history,
        ledger,
        [...lsns].sort((a, b) => a - b),
      );
    }
  }

  /** Every LSN of every volume opens and is right; everything is in the bucket, held, intact. */
  private async judgeEverything(life: PastLife): Promise<void> {
    const { world } = this;
    const { scheduler, plan } = world;
    // An archive that did not open at the start is opened again after half a minute.
    await scheduler.pass(40_000);
    for (const { archive, ledger } of life.serving) {
      if (archive === null) throw new Error(`${ledger.name} has no archive while the bucket is well`);
      await scheduler.until(archive.archive(ledger.lastLsn), `archiving ${ledger.name}`);
    }
    await scheduler.pass(4 * plan.settleMs + 60_000);
    for (const { archive, ledger } of life.serving) {
      const status = archive?.status();
      if (status === undefined || status.heldLsn < ledger.lastLsn) {
        throw new Error(`${ledger.name} is held up to LSN ${status?.heldLsn}, not ${ledger.lastLsn}`);
      }
      const why = world.watch.whyNotHeld(ledger.id, ledger.lastLsn);
      if (why !== null) throw new Error(`${ledger.name} is said to be held, but ${why}`);
    }
    world.watch.lost.clear();
    world.watch.checkAll("in the end");
    const left = life.opened.host.settling.names().join();
    if (left !== "")
      throw new Error(`files of ${left} are still here although the bucket had time to hold it`);
    world.throwFailure();
    for (const { ledger } of life.serving) {
      const history = await scheduler.until(life.opened.histories.find(ledger.id), "finding a history");
      const { fromLsn } = await scheduler.until(history.range(), "the range of a history");
      const all = Array.from({ length: ledger.lastLsn }, (_, index) => index + 1);
      await judgePoints(
        world,
        history,
        ledger,
        all.filter((lsn) => lsn >= fromLsn),
      );
    }
  }

  /**
   * What a power loss of the bucket took comes back after a settle time; a bucket that was away at the start is known half a minute
   * after it is back. Until then points may fail, but never be wrong.
   */
  private async unlessLost(what: string, work: () => Promise<void>): Promise<void> {
    const { world } = this;
    try {
      await work();
    } catch (cause) {
      world.throwFailure();
      const isAway = toVarveError(rootOf(cause), what).kind === "Retry" && world.bucketMayFail;
      if (!isAway && !world.watch.isOfLost(cause)) throw cause;
      world.note(`${what}: ${String(cause)}`);
      world.count(`judged later: ${what}`);
    }
  }
}

function rootOf(cause: unknown): unknown {
  let error = cause;
  while (error instanceof Error && !(error instanceof VarveError) && error.cause !== undefined)
    error = error.cause;
  return error;
}
