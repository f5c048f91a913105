/*
 * What happens to a volume beside its clients: checkpoints, marks, resizes, syncs, wall-clock jumps, a disk that turns
 * bad or full for a while. One stream of events per life, each at a random moment. Started by life.ts.
 */
import { toVarveError, type VarveError } from "#shared/domain/errors.ts";
import type { Life } from "./life.ts";
import type { SeededRandom } from "./scheduler.ts";

type EventKind = "checkpoint" | "mark" | "grow" | "sync" | "clock" | "weather" | "squeeze";

/** What a disk may do wrong for a while. Errors are rare within bad weather, so that some of it is survived. */
const weathers = {
  cold: { coldRead: 0.5, shortRead: 0.1 },
  misread: { coldRead: 0.5, readError: 0.2 },
  badWrites: { writeError: 0.06 },
  badSyncs: { syncError: 0.15 },
  badNames: { nameError: 0.1 },
  terrible: { coldRead: 0.3, writeError: 0.3, syncError: 0.5, nameError: 0.3 },
} as const;

export class LifeEvents {
  private readonly life: Life;
  private readonly random: SeededRandom;
  private running = false;
  private underWay = 0;
  /** How bad this life's disk may become. */
  private readonly mood: "well" | "cold" | "bad";

  constructor(life: Life) {
    this.life = life;
    this.random = life.random.fork();
    this.mood = this.random.weighted({ well: 4, cold: 3, bad: 3 });
  }

  get busy(): boolean {
    return this.underWay > 0;
  }

  start(): void {
    this.running = true;
    this.next();
  }

  stop(): void {
    this.running = false;
    this.clearWeather();
  }

  private clearWeather(): void {
    const { disk } = this.life.world;
    Object.assign(disk.faults, {
      coldRead: this.mood === "well" ? 0 : 0.1,
      shortRead: this.mood === "well" ? 0 : 0.05,
      readError: 0,
      writeError: 0,
      syncError: 0,
      nameError: 0,
    });
    disk.quotaBytes = this.life.world.plan.diskBytes;
  }

  private next(): void {
    if (!this.running) return;
    this.life.scheduler.after(this.random.next() * 25, () => {
      if (!this.running || this.life.halted) return;
      this.happen(
        this.random.weighted<EventKind>({
          checkpoint: 5,
          mark: 3,
          grow: 1,
          sync: 1,
          clock: 1,
          weather: this.mood === "well" ? 0 : 3,
          squeeze: this.mood === "bad" && !this.life.world.plan.diskIsSmall ? 1 : 0,
        }),
      );
      this.next();
    });
  }

  private happen(kind: EventKind): void {
    const { life } = this;
    life.note(`event: ${kind}`);
    life.world.count(`event ${kind}`);
    const { session } = life.opened;
    switch (kind) {
      case "checkpoint":
        this.follow("checkpoint", session.checkpoint());
        break;
      case "mark":
        this.mark();
        break;
      case "grow":
        this.grow();
        break;
      case "sync": {
        const covered = life.oracle.submitted;
        this.follow("sync", session.sync(), () => life.oracle.promise(covered));
        break;
      }
      case "clock":
        life.scheduler.jumpWallClock(this.random.integer(-100_000_000, 100_000_000));
        break;
      case "weather":
        this.changeWeather();
        break;
      case "squeeze":
        this.squeeze();
        break;
    }
  }

  private mark(): void {
    const { life } = this;
    const index = life.oracle.submit({ kind: "nothing" });
    this.follow("mark", life.opened.session.mark(`m${index}`), () => {
      life.oracle.acknowledge(index);
      life.oracle.promise(index + 1);
    });
  }

  private grow(): void {
    const { life } = this;
    const { session } = life.opened;
    const sizeBytes = session.sizeBytes + this.random.integer(1, 5 * 4096);
    if (sizeBytes > 2 * life.world.plan.sizeBytes) return;
    this.resize(sizeBytes);
  }

  /** Grows at any time; shrinks only where no client is connected, as the volume host sees to. */
  resize(sizeBytes: number): void {
    const { life } = this;
    if (this.resizing) return;
    this.resizing = true;
    life.note(`resize to ${sizeBytes}`);
    const { session } = life.opened;
    const index = life.oracle.submit({ kind: "resize", sizeBytes });
    this.follow(
      "resize",
      session.resize(sizeBytes),
      () => {
        this.resizing = false;
        life.oracle.acknowledge(index);
        life.oracle.promise(index + 1);
      },
      (error) => {
        this.resizing = false;
        // No memory, no room: refused before it was taken. But its checkpoint may have failed, too.
        const refused = error.kind === "Retry" || life.judgeError("resize", error).refused;
        if (refused && !life.halted && session.sizeBytes !== sizeBytes) life.oracle.refuse(index);
      },
    );
  }

  private resizing = false;

  private changeWeather(): void {
    const { world, scheduler } = this.life;
    const name = this.random.weighted<keyof typeof weathers>(
      this.mood === "bad"
        ? { cold: 2, misread: 2, badWrites: 3, badSyncs: 3, badNames: 1, terrible: 1 }
        : { cold: 1, misread: 0, badWrites: 0, badSyncs: 0, badNames: 0, terrible: 0 },
    );
    this.life.note(`weather: ${name}`);
    world.count(`weather ${name}`);
    Object.assign(world.disk.faults, weathers[name]);
    scheduler.after(this.random.next() * 20, () => {
      if (this.running) this.clearWeather();
    });
  }

  /** Somebody else fills the disk, and clears it after a while. */
  private squeeze(): void {
    const { life } = this;
    const { disk } = life.world;
    life.troubled = true;
    disk.quotaBytes = disk.usedBytes + this.random.integer(0, 8) * 4096;
    life.scheduler.after(this.random.next() * 60, () => {
      disk.quotaBytes = this.life.world.plan.diskBytes;
    });
  }

  private follow(
    what: string,
    work: Promise<unknown>,
    done: () => void = () => undefined,
    failed: (error: VarveError) => void = (error) => {
      if (error.kind !== "Retry") this.life.judgeError(what, error);
    },
  ): void {
    this.underWay += 1;
    work.then(
      () => {
        this.underWay -= 1;
        this.life.note(`${what}: done`);
        done();
      },
      (cause: unknown) => {
        this.underWay -= 1;
        const error = toVarveError(cause, what);
        this.life.note(`${what}: ${error.message}`);
        failed(error);
      },
    );
  }
}
