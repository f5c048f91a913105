/*
 * One process life of a simulated volume: opens it from the disk as it is, lets clients and events loose on it, and ends as
 * the seed says: a clean close, a kill, a power loss, a halt. Holds what only this process knows; the world outlives it.
 * Called by run-seed.ts; wires the real volume session, log, image and pool through wiring.ts.
 */
import type { VarveError } from "#shared/domain/errors.ts";
import { toVarveError } from "#shared/domain/errors.ts";
import type { BlockExport } from "#shared/ports/block-export.ts";
import type { Durability } from "#shared/ports/write-log.ts";
import type { VolumeSessionStatus } from "../../services/gateway/engine/volume-session.ts";
import { type ClientHost, SimulatedClient } from "./client.ts";
import { LifeEvents } from "./life-events.ts";
import type { PrefixOracle } from "./oracle.ts";
import type { Scheduler, SeededRandom } from "./scheduler.ts";
import { type OpenVolume, openVolume } from "./wiring.ts";
import type { World } from "./world.ts";

export class Life implements ClientHost {
  readonly world: World;
  readonly random: SeededRandom;
  readonly number: number;
  readonly durability: Durability;
  readonly oracle: PrefixOracle;
  readonly scheduler: Scheduler;
  private volume: OpenVolume | null = null;
  private clients: SimulatedClient[] = [];
  /** Disconnected with requests under way. */
  private readonly gone: SimulatedClient[] = [];
  private clientCount = 0;
  private events: LifeEvents | null = null;
  private closing = false;
  private haltedBy: VarveError | null = null;
  private readonly faultsBefore: number;
  /** The disk was made too small, or answered an error, at any time in this life. */
  troubled = false;

  constructor(world: World, durability: Durability) {
    this.world = world;
    this.random = world.random.fork();
    this.number = world.startLife();
    this.durability = durability;
    this.oracle = world.oracle;
    this.scheduler = world.scheduler;
    this.faultsBefore = world.disk.counters.faults;
    world.scheduler.afterStep = () => this.checkStep();
  }

  get opened(): OpenVolume {
    if (this.volume === null) throw new Error("the volume of this life is not open");
    return this.volume;
  }

  get halted(): boolean {
    return this.haltError !== null;
  }

  /** The session knows of a halt before anybody is told. */
  private get haltError(): VarveError | null {
    return this.haltedBy ?? this.volume?.session.status().error ?? null;
  }

  get sawFaults(): boolean {
    return this.troubled || this.world.powerFails || this.world.disk.counters.faults > this.faultsBefore;
  }

  /** Opens the volume; rejects as the product does. */
  async open(): Promise<void> {
    this.volume = await openVolume(this.world, this.durability, {
      halted: (error) => {
        this.haltedBy = error;
        this.note(`halted: ${error.message}`);
      },
    });
    const { log } = this.volume.session.status();
    if (log.epoch <= this.world.epoch) {
      this.fail(`epoch ${log.epoch} was opened after epoch ${this.world.epoch}`);
    }
    if (this.world.line !== null && this.world.line !== log.line) this.fail("a log changed its line");
    this.world.epoch = log.epoch;
    this.world.line = log.line;
    this.note(`open: epoch ${log.epoch}, LSN ${log.lastLsn}`);
  }

  startClients(count: number): void {
    const { store } = this.opened;
    this.clients = [];
    for (let index = 0; index < count; index++) {
      this.clientCount += 1;
      const { profile } = this.world.plan;
      const memory = store.allocateSlab(Math.ceil(profile.writeBytesMax / 4096) * 4096);
      const client = new SimulatedClient(`c${this.clientCount}`, this, profile, this.random.fork(), memory);
      client.start();
      this.clients.push(client);
    }
  }

  startEvents(): void {
    this.events ??= new LifeEvents(this);
    this.events.start();
  }

  async run(steps: number): Promise<void> {
    const { world } = this;
    world.mayFailInline = true;
    await this.scheduler.run(steps, () => !this.halted && !world.powerFails);
    world.mayFailInline = false;
    // A halted volume goes on answering.
    if (this.halted && !world.powerFails) await this.scheduler.run(this.random.integer(0, 60));
  }

  /** No new requests, disk well again; everything that was asked for is answered. */
  async quiesce(): Promise<void> {
    for (const client of this.clients) client.stop();
    this.events?.stop();
    const busy = (): SimulatedClient[] => this.clients.filter((client) => !client.idle);
    const waits = (): boolean => busy().length > 0 || (this.events?.busy ?? false);
    const who = (): string => [...busy().map((client) => client.describeWait()), "or an event"].join(", ");
    try {
      await this.scheduler.while(waits, "a request");
    } catch (cause) {
      this.world.throwFailure();
      throw new Error(`${who()} waits for ever`, { cause });
    }
    for (const client of this.clients) client.disconnect();
    this.clients = [];
  }

  /** Clients vanish as they are: half-received payloads, unanswered requests. */
  disconnectAll(): void {
    for (const client of this.clients) client.disconnect();
    this.gone.push(...this.clients);
    this.clients = [];
    this.events?.stop();
  }

  /** Every request of a volume that is closed has its answer. */
  async everyoneAnswered(): Promise<void> {
    const waits = (): boolean => this.gone.some((client) => client.unanswered > 0);
    await this.scheduler.while(waits, "a request on a closed volume");
  }

  /** Begins to close, in a process that will not live to see the end of it. */
  beginToClose(): void {
    this.closing = true;
    this.opened.session.close().catch(() => undefined);
  }

  /** Closes; what the product says of it is judged. */
  async close(): Promise<void> {
    this.closing = true;
    this.events?.stop();
    const { session } = this.opened;
    try {
      await this.scheduler.until(session.close(), "closing the volume");
    } catch (cause) {
      this.world.throwFailure();
      const error = toVarveError(cause, "close");
      if (!this.halted) {
        if (!this.sawFaults) this.fail(`closing failed without a cause: ${error.message}`, cause);
        this.haltedBy = error;
      }
    }
    this.world.throwFailure();
  }

  /** The process is gone. */
  end(): void {
    this.closing = true;
    this.events?.stop();
    this.scheduler.afterStep = () => undefined;
    this.scheduler.reset();
  }

  /** Opening failed; the same process tries again with another life. */
  forsake(): void {
    this.closing = true;
    this.scheduler.afterStep = () => this.world.throwFailure();
  }

  /** A resize while no client is connected: it may shrink, too. */
  async resizeAlone(): Promise<void> {
    const { plan } = this.world;
    this.events ??= new LifeEvents(this);
    this.events.resize(this.random.integer(Math.ceil(plan.sizeBytes / 2), 2 * plan.sizeBytes));
    await this.scheduler.while(() => this.events?.busy ?? false, "a resize");
  }

  openExport(): BlockExport {
    return this.world.mutant.opened(this.opened.session.openExport("simulated"), this.scheduler);
  }

  fail(what: string, cause?: unknown): void {
    this.world.fail(`life ${this.number}: ${what}`, cause);
  }

  note(what: string): void {
    this.world.note(what);
  }

  readMayFail(): boolean {
    // A close does not wait for cold reads of clients that are gone.
    return this.sawFaults || this.closing;
  }

  /** An error while serving says that the operation never happened; it needs a cause. After a halt nothing is known. */
  judgeError(what: string, error: VarveError): { readonly refused: boolean } {
    if (error === this.haltError || this.closing) return { refused: false };
    if (error.kind !== "Full" && !this.sawFaults) {
      this.fail(`${what} was answered with ${error._tag} (${error.kind}): ${error.message}`, error);
    }
    this.world.count(`refused, ${error._tag}`);
    return { refused: error.kind === "Full" || !this.halted };
  }

  /** What must hold at every moment. */
  private checkStep(): void {
    this.world.throwFailure();
    if (this.volume === null || !this.world.watchesSteps) return;
    const status: VolumeSessionStatus = this.volume.session.status();
    const { log, image } = status;
    if (this.halted && !this.sawFaults) {
      this.fail(`halted without a cause: ${this.haltError?.message}`, this.haltError);
    }
    if (log.lastLsn < log.storedLsn || log.storedLsn < log.durableLsn) {
      this.fail(`log state: last ${log.lastLsn}, stored ${log.storedLsn}, durable ${log.durableLsn}`);
    }
    if (image.appliedLsn > log.durableLsn) {
      this.fail(`the image is ahead: applied ${image.appliedLsn}, durable ${log.durableLsn}`);
    }
    if (image.checkpointLsn > image.appliedLsn) {
      this.fail(`the checkpoint is ahead: ${image.checkpointLsn}, applied ${image.appliedLsn}`);
    }
    if (log.oldestLsn > image.checkpointLsn + 1) {
      this.fail(`the log was released to LSN ${log.oldestLsn}, the checkpoint is at ${image.checkpointLsn}`);
    }
    this.world.throwFailure();
  }
}
