/*
 * One seed of the cluster world from begin to end: rounds of faults under load, after each of which everything is healed, comes to rest
 * and is compared: every replica with the log, every gateway's disk with what was acknowledged. Called by simulate.ts and
 * simulation.test.ts. A seed that fails throws nothing: its result says what was wrong.
 */
import type { SeedResult } from "../run-seed.ts";
import { cellBytes, cellSerial } from "./cells.ts";
import { ClusterEvents } from "./cluster-events.ts";
import { type ClusterMutant, faithfulCluster } from "./cluster-mutant.ts";
import { ClusterWorld } from "./cluster-world.ts";

/** Simulated time in which everything must go on after all faults ended. */
const restMs = 120_000;

export async function runClusterSeed(
  seed: number,
  options: { readonly mutant?: ClusterMutant; readonly print?: (line: string) => void } = {},
): Promise<SeedResult> {
  const { mutant = faithfulCluster, print = null } = options;
  const world = new ClusterWorld(seed, mutant, print);
  const stray = (cause: unknown): void => {
    world.fail(`nobody handled: ${cause instanceof Error ? cause.message : String(cause)}`, cause);
  };
  process.on("unhandledRejection", stray);
  let failure: Error | null = null;
  try {
    world.scheduler.afterStep = () => world.throwFailure();
    await new ClusterRun(world).run();
    world.throwFailure();
  } catch (cause) {
    failure = world.failure ?? (cause instanceof Error ? cause : new Error(String(cause)));
  } finally {
    process.off("unhandledRejection", stray);
    world.scheduler.afterStep = () => undefined;
    world.end();
  }
  if (failure !== null && world.failure === null) world.note(`FAILED: ${failure.message}`);
  return { seed, failure, steps: world.scheduler.steps, counts: world.counts };
}

class ClusterRun {
  private readonly world: ClusterWorld;
  private readonly events: ClusterEvents;

  constructor(world: ClusterWorld) {
    this.world = world;
    this.events = new ClusterEvents(world);
  }

  async run(): Promise<void> {
    const { world } = this;
    const { plan, random, scheduler } = world;
    for (const { name } of world.nodes) world.startNode(name);
    for (const { name } of world.gateways) world.startGateway(name);
    for (let round = 0; round < plan.rounds; round++) {
      for (const client of world.clients) client.start();
      const faults = random.integer(1, 5);
      for (let count = 0; count < faults; count++) this.events.plan(plan.roundMs);
      await scheduler.pass(plan.roundMs);
      this.events.healAll();
      await this.everybodyGoesOn();
      await this.comeToRest();
      await this.judgeRest();
      // A checkpoint now and then lets log go.
      if (random.chance(0.5)) await scheduler.pass(random.integer(1000, 70_000));
    }
    await this.stopEverything();
  }

  /** Each client gets a change acknowledged. */
  private async everybodyGoesOn(): Promise<void> {
    const { world } = this;
    const before = world.clients.map(({ acknowledged }) => acknowledged);
    await this.within(
      () => world.clients.every(({ acknowledged }, index) => acknowledged > (before[index] ?? 0)),
      () => `nobody serves ${world.clients.map((client) => client.describe()).join(", ")}`,
    );
  }

  private async comeToRest(): Promise<void> {
    const { world } = this;
    for (const client of world.clients) client.stop();
    await this.within(
      () => world.clients.every(({ idle }) => idle),
      () => `unanswered: ${world.clients.map((client) => client.describe()).join(", ")}`,
    );
    await this.within(
      () => world.nodes.every(({ storage }) => this.hasFollowed(storage?.report() ?? null)),
      () => {
        const states = world.nodes.map(({ name, storage }) => {
          const report = storage?.report();
          const why = storage?.failure()?.message ?? report?.reason ?? "";
          return `${name} ${report?.condition} at ${report?.appliedLsn} ${why}`;
        });
        return `the log is at LSN ${world.truth.lastLsn}, but ${states.join("; ")}`;
      },
    );
  }

  private hasFollowed(report: { condition: string; appliedLsn: number } | null): boolean {
    return report?.condition === "following" && report.appliedLsn === this.world.truth.lastLsn;
  }

  /** Nothing is under way: replicas are the log, and what is served is what was acknowledged. */
  private async judgeRest(): Promise<void> {
    const { world } = this;
    this.judgeImages();
    const { oracle } = world;
    const newest = Number.POSITIVE_INFINITY;
    for (let cell = 0; cell < oracle.cells; cell++) {
      const why = oracle.judge(cell, world.truth.serialOf(cell), oracle.floor(newest, cell));
      if (why !== null) throw new Error(`at rest the log has lost something: ${why}`);
    }
    await this.judgeServed();
    world.count("times at rest");
  }

  private judgeImages(): void {
    const { world } = this;
    const truth = world.truth.bytes(0, world.truth.sizeBytes);
    for (const { name } of world.nodes) {
      const image = world.imageOf(name);
      if (image === null) throw new Error(`${name} has no image`);
      for (let at = 0; at < truth.length; at += cellBytes) {
        if (truth.compare(image, at, at + cellBytes, at, at + cellBytes) === 0) continue;
        const cell = at / cellBytes;
        const [is, should] = [cellSerial(image, cell, at), cellSerial(truth, cell, at)];
        throw new Error(`at rest ${name}'s image has serial ${is} in cell ${cell}, the log ${should}`);
      }
      world.count("images judged");
    }
  }

  /** The whole disk, through whoever serves it. */
  private async judgeServed(): Promise<void> {
    const { world } = this;
    const { sizeBytes } = world.truth;
    const bytes = await this.readWhole();
    const truth = world.truth.bytes(0, sizeBytes);
    for (let at = 0; at < sizeBytes; at += cellBytes) {
      if (truth.compare(bytes, at, at + cellBytes, at, at + cellBytes) === 0) continue;
      const cell = at / cellBytes;
      const [is, should] = [cellSerial(bytes, cell, at), cellSerial(truth, cell, at)];
      throw new Error(`at rest serial ${is} of cell ${cell} is served, the log has ${should}`);
    }
  }

  private async readWhole(): Promise<Buffer> {
    const { world } = this;
    const { scheduler } = world;
    const endMs = scheduler.nowMs + restMs;
    let why = "";
    while (scheduler.nowMs < endMs) {
      const gateway = world.gateway(world.random.pick(world.gatewayNames));
      try {
        if (gateway !== null) {
          const connection = await scheduler.until(gateway.open("judge"), "opening for the judge");
          const request = {
            kind: "read",
            cell: 0,
            cells: world.oracle.cells,
            bytes: Buffer.alloc(0),
            serials: [],
          } as const;
          const answered = new Promise<Buffer>((resolve, reject) => {
            connection.request(request, ({ error, bytes }) =>
              error === null ? resolve(bytes) : reject(error),
            );
          });
          const bytes = await scheduler.until(answered, "the judge's read");
          connection.close();
          return bytes;
        }
      } catch (cause) {
        world.throwFailure();
        why = cause instanceof Error ? cause.message : String(cause);
      }
      await scheduler.pass(200);
    }
    throw new Error(`nobody shows the disk at rest: ${why}`);
  }

  /** SIGTERM for all: the image files are the disk. */
  private async stopEverything(): Promise<void> {
    const { world } = this;
    const { scheduler } = world;
    for (const { gateway } of world.gateways) {
      if (gateway !== null) await scheduler.until(gateway.close(), `${gateway.name} stopping`);
    }
    for (const { storage } of world.nodes) {
      if (storage !== null) await scheduler.until(storage.close(), `${storage.name} stopping`);
    }
    for (const { name } of world.nodes) world.killNode(name, world.random.chance(0.5));
    // The last tenures' entries change nothing on the disk.
    this.judgeImages();
  }

  /** Time passes until it holds; not for ever. */
  private async within(holds: () => boolean, why: () => string): Promise<void> {
    const { scheduler } = this.world;
    const endMs = scheduler.nowMs + restMs;
    while (!holds()) {
      if (scheduler.nowMs >= endMs) throw new Error(why());
      await scheduler.pass(50);
    }
  }
}
