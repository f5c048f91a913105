/*
 * What people and the weather do to volumes with a past while clients work: snapshots, clones of clones, rollbacks, resizes, policies,
 * fills, points opened and read, checkpoints, bases, bad and absent buckets, clock jumps. One stream of operations per life.
 * Started by past-life.ts; what the past must show is judged by past-judge.ts.
 */
import type { BucketFaults } from "#shared/adapters/object-store/simulated-bucket.ts";
import { noBucketFaults } from "#shared/adapters/object-store/simulated-bucket.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import type { SeededRandom } from "../scheduler.ts";
import { deletedVolume, jobEnded, scrubUnderLoad, undelete } from "./past-housekeeping.ts";
import type { PastLife } from "./past-life.ts";
import type { ServedVolume } from "./past-process.ts";
import type { SharedDisk } from "./shared-disk.ts";

type Weather = "weather" | "store power loss" | "clock" | "collect" | "check" | "undelete";
/** Where two at a time would only wait for each other. */
type Change = "clone" | "delete" | "rollback" | "resize" | "policy";
type Work =
  | "checkpoint"
  | "snapshot"
  | "forget snapshot"
  | "fill"
  | "tier"
  | "point"
  | "base"
  | "archive"
  | "scrub";
type Operation = Weather | Change | Work;

const changes: ReadonlySet<Operation> = new Set(["clone", "delete", "rollback", "resize", "policy"]);
const isChange = (operation: Change | Work): operation is Change => changes.has(operation);

const weights: Readonly<Record<Operation, number>> = {
  checkpoint: 5,
  snapshot: 4,
  "forget snapshot": 1,
  clone: 2,
  delete: 0.8,
  rollback: 1.5,
  resize: 1,
  policy: 1,
  fill: 1,
  tier: 2,
  point: 5,
  base: 3,
  archive: 3,
  weather: 3,
  "store power loss": 0.7,
  clock: 1,
  collect: 2,
  check: 0.5,
  scrub: 0.7,
  undelete: 2,
};

/** What a bucket may do for a while. */
const weathers: Readonly<Record<string, Partial<BucketFaults>>> = {
  slow: { slow: 0.2 },
  errors: { errorBefore: 0.2 },
  "lost answers": { errorAfter: 0.2 },
  hangs: { hang: 0.05 },
  "broken bodies": { brokenBody: 0.3 },
  everything: { slow: 0.05, errorBefore: 0.1, errorAfter: 0.1, hang: 0.03, brokenBody: 0.1 },
  away: { away: true },
  full: { full: true },
};

export class PastOperations {
  /** What is under way, for whoever waits. */
  readonly busy: string[] = [];
  private readonly life: PastLife;
  private readonly random: SeededRandom;
  private running = false;
  private count = 0;
  /** At most one change of a volume at a time: the next would only wait behind it. */
  private changing = new Set<string>();

  constructor(life: PastLife) {
    this.life = life;
    this.random = life.random.fork();
  }

  start(): void {
    if (this.running) return;
    this.running = true;
    this.next();
    if (this.life.world.shared !== null) this.nextSqueeze(this.life.world.shared);
  }

  /** Nothing new, and the weather is fine. */
  stop(): void {
    this.running = false;
    this.clear();
  }

  private clear(): void {
    const { bucket, plan, shared } = this.life.world;
    const { conditionalPutLies } = plan;
    // Asking takes a note of the trouble that ends here.
    void this.life.world.bucketMayFail;
    if (!this.running) shared?.makeRoom();
    Object.assign(bucket.faults, noBucketFaults, { conditionalPutLies });
  }

  private next(): void {
    if (!this.running) return;
    this.life.scheduler.after(this.random.next() * 120, () => {
      if (!this.running) return;
      const operation = this.random.weighted(weights);
      this.life.world.count(`operation: ${operation}`);
      this.begin(operation);
      this.next();
    });
  }

  /** Somebody fills the disk for a while, again and again. */
  private nextSqueeze(shared: SharedDisk): void {
    const { random, life } = this;
    life.scheduler.after(random.next() * 200, () => {
      if (!this.running) return;
      shared.squeeze(random.integer(0, 64));
      const ms = random.chance(0.2) ? 60_000 : 1_000;
      life.scheduler.after(random.next() * ms, () => {
        shared.makeRoom();
        if (this.running) this.nextSqueeze(shared);
      });
    });
  }

  private begin(operation: Operation): void {
    const { life } = this;
    const { scheduler, world } = life;
    if (operation === "weather") return this.changeWeather();
    if (operation === "clock") return scheduler.jumpWallClock(this.random.integer(-100_000_000, 100_000_000));
    if (operation === "store power loss") {
      // It may take what was not read back yet; while it restarts nobody is served.
      world.watch.powerLoss();
      world.bucketTroubled();
      return life.note("the bucket's machine lost power");
    }
    if (operation === "collect" || operation === "check") {
      this.keep(operation).catch((cause: unknown) => life.judgeRefusal(operation, cause, null));
      return;
    }
    if (operation === "undelete") return this.undelete();
    const { serving } = life;
    if (serving.length === 0) return;
    const volume = this.random.pick(serving);
    this.follow(
      `${operation} of ${volume.name}`,
      volume,
      isChange(operation) ? this.alone(operation, volume) : this.work(operation, volume),
    );
  }

  /** Housekeeping; what it deletes is judged at each delete. */
  private async keep(operation: "collect" | "check"): Promise<void> {
    const { life } = this;
    const { world } = life;
    const { keeper, host } = life.opened;
    const acceptClock = this.random.chance(0.3);
    world.clockAccepted ||= operation === "collect" && acceptClock;
    const { id } =
      operation === "collect"
        ? keeper.collect({ dryRun: false, acceptClock })
        : keeper.check({ quick: false });
    this.busy.push(operation);
    const deletionsBefore = world.watch.deletions;
    try {
      await jobEnded(life, id);
    } finally {
      this.busy.splice(this.busy.indexOf(operation), 1);
    }
    const { state } = host.jobs.show(id);
    life.note(`${operation}: ${state}`);
    if (state !== "done") return;
    const found = keeper.report(id);
    if (found.kind === "collect") world.count("objects collected", found.report.deleted);
    // Where somebody accepted a clock, grace is over at once, also for what a check has read the names of, if that goes meanwhile.
    const mayMiss = world.clockAccepted && world.watch.deletions !== deletionsBefore;
    if (found.kind === "check" && world.watch.nothingLost && !mayMiss) {
      world.count("bucket checks judged");
      // A volume that is new has segments before it has a manifest.
      const [first] = found.report.findings.filter((finding) => !finding.key.endsWith("/"));
      if (first === undefined) return;
      life.fail(`the check of the bucket says: ${first.key} ${first.problem}`);
    }
  }

  /** Where a volume may come back; one at a time. */
  private undelete(): void {
    const { life } = this;
    const ledger = deletedVolume(life);
    if (ledger === null || this.busy.some((one) => one.startsWith("undelete"))) return;
    const what = `undelete of ${ledger.name}`;
    life.note(what);
    this.busy.push(what);
    undelete(life, ledger)
      .catch((cause: unknown) => life.judgeRefusal(what, cause, null))
      .finally(() => {
        this.busy.splice(this.busy.indexOf(what), 1);
      });
  }

  private async work(operation: Work, volume: ServedVolume): Promise<void> {
    const { life } = this;
    const { host } = life.opened;
    const { name, session, archive } = volume;
    switch (operation) {
      case "checkpoint":
        return await session.checkpoint();
      case "snapshot": {
        this.count += 1;
        const made = await host.past.createSnapshot(name, `s${life.number}.${this.count}`);
        volume.ledger.snapshots.set(made.name, made.lsn);
        return;
      }
      case "forget snapshot": {
        const known = this.random.pick([...volume.ledger.snapshots.keys(), ""]);
        if (known === "") return;
        volume.ledger.snapshots.delete(known);
        return await host.past.deleteSnapshot(name, known);
      }
      case "base":
        await archive?.takeBase();
        return;
      case "archive":
        return await archive?.archive(this.random.integer(1, session.status().log.durableLsn + 1));
      case "point":
        return await this.readPoint(volume);
      case "fill":
        await host.past.fill(name);
        return;
      case "scrub":
        return await scrubUnderLoad(life, volume, this.random.chance(0.5));
      case "tier":
        await host.past.setPolicy(name, { residency: "tiered", coldAfterMs: 60_000 });
        await host.past.tier(name, 0);
        return;
      default:
        throw new TypeError(operation satisfies never);
    }
  }

  private async alone(operation: Change, volume: ServedVolume): Promise<void> {
    const { name } = volume;
    if (this.changing.has(name)) return;
    this.changing.add(name);
    try {
      await this.change(operation, volume);
    } finally {
      this.changing.delete(name);
    }
  }

  private async change(operation: Change, volume: ServedVolume): Promise<void> {
    const { life } = this;
    const { name, session } = volume;
    const { past } = life.opened.host;
    switch (operation) {
      case "clone":
        return await this.clone(volume);
      case "delete":
        return await this.delete(volume);
      case "rollback": {
        const lsn = this.randomPoint(volume);
        if (lsn === null) return;
        volume.ledger.askedRebases.add(lsn);
        life.disconnect(name);
        await past.rollback(name, `lsn:${lsn}`, true);
        volume.ledger.beginSession();
        life.world.count("rollbacks");
        return;
      }
      case "resize": {
        const shrink = this.random.chance(0.4);
        if (shrink) life.disconnect(name);
        const { sizeBytes } = life.world.plan;
        const wanted = shrink
          ? 512 * this.random.integer(8, session.sizeBytes / 512)
          : session.sizeBytes + 512 * this.random.integer(1, 512);
        if (wanted > 2 * sizeBytes) return;
        await life.opened.host.resize(name, wanted, shrink);
        return;
      }
      case "policy": {
        const tiered = this.random.chance(0.6);
        await past.setPolicy(name, {
          residency: tiered ? "tiered" : "full",
          coldAfterMs: this.random.pick([1, 1_000, 60_000]),
        });
        return;
      }
      default:
        throw new TypeError(operation satisfies never);
    }
  }

  private async clone(parent: ServedVolume): Promise<void> {
    const { life } = this;
    const { plan, counts } = life.world;
    if (life.serving.length >= plan.volumesMax) return;
    const snapshots = [...parent.ledger.snapshots];
    const snapshot = snapshots.length > 0 && this.random.chance(0.4) ? this.random.pick(snapshots) : null;
    const lsn = snapshot?.[1] ?? this.randomPoint(parent);
    if (lsn === null) return;
    this.count += 1;
    const larger = this.random.chance(0.3) ? 512 * this.random.integer(1, 4096) : 0;
    const sizeBytes = parent.ledger.sizeAt(lsn) + larger;
    const name = `clone${life.number}.${this.count}`;
    const wanted = {
      name,
      parent: parent.name,
      point: snapshot?.[0] ?? `lsn:${lsn}`,
      sizeBytes: larger === 0 ? null : sizeBytes,
      policy: {
        residency: this.random.chance(0.5) ? ("tiered" as const) : ("full" as const),
        coldAfterMs: 1000,
      },
    };
    try {
      await life.opened.host.past.createFrom({
        ...wanted,
        durability: this.random.chance(0.5) ? "write" : "flush",
      });
    } catch (cause) {
      // Somebody forgot the snapshot meanwhile.
      if (snapshot !== null && !parent.ledger.snapshots.has(snapshot[0])) return;
      throw cause;
    }
    counts.set("clones", (counts.get("clones") ?? 0) + 1);
    const made = life.serving.find((volume) => volume.name === name);
    const origin = made?.ledger.begin.origin;
    if (made !== undefined) made.ledger.made = true;
    if (origin?.lsn !== lsn || origin.ledger !== parent.ledger) {
      life.fail(
        `${name} was made of ${origin?.ledger.name}@lsn:${origin?.lsn}, not ${parent.name}@lsn:${lsn}`,
      );
    }
    if (this.random.chance(0.7)) life.startClientOf(name);
  }

  private async delete(volume: ServedVolume): Promise<void> {
    const { life } = this;
    if (life.serving.length < 2) return;
    life.disconnect(volume.name);
    await life.opened.host.delete(volume.name);
    volume.ledger.deleted = true;
    life.world.count("volumes deleted");
    if (life.opened.host.settling.has(volume.ledger.id)) life.world.count("volumes deleted that settle");
  }

  /** A random entry that is durable and not before what is kept. */
  private randomPoint(volume: ServedVolume): number | null {
    const first = Math.max(1, volume.archive?.manifest()?.retainedFromLsn ?? 1);
    const { lastLsn } = volume.ledger;
    return lastLsn < first ? null : this.random.integer(first, lastLsn + 1);
  }

  /** Opens a point as the API does, and compares a part of it, while everything goes on. */
  private async readPoint(volume: ServedVolume): Promise<void> {
    const { life } = this;
    const lsn = this.randomPoint(volume);
    if (lsn === null) return;
    const rightBytes = volume.ledger.sizeAt(lsn);
    const { offset, length } = this.random.pick(life.world.plan.regions);
    if (offset + length > rightBytes) return;
    const { bytes, sizeBytes } = await life.opened.host.past.readPoint(
      volume.name,
      `lsn:${lsn}`,
      offset,
      length,
    );
    const same = Buffer.compare(bytes, volume.ledger.partAt(lsn, offset, length)) === 0;
    if (!same || sizeBytes !== rightBytes)
      life.fail(`${volume.name}@lsn:${lsn} reads wrong bytes under load`);
    life.world.count("points read under load");
  }

  private changeWeather(): void {
    const { world, scheduler } = this.life;
    const name = this.random.pick(Object.keys(weathers));
    this.life.note(`bucket: ${name}`);
    world.count(`bucket ${name}`);
    Object.assign(world.bucket.faults, weathers[name]);
    const ms = this.random.chance(0.2) ? 60_000 : 2_000;
    scheduler.after(this.random.next() * ms, () => {
      if (this.running) this.clear();
    });
  }

  private follow(what: string, volume: ServedVolume, work: Promise<void>): void {
    const { life } = this;
    life.note(what);
    this.busy.push(what);
    const end = (): void => {
      this.busy.splice(this.busy.indexOf(what), 1);
    };
    work.then(
      () => {
        end();
        life.note(`${what}: done`);
      },
      (cause: unknown): VarveError => {
        end();
        return life.judgeRefusal(what, cause, volume);
      },
    );
  }
}
