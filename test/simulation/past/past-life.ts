/*
 * One process life of a machine with a bucket: opens it, lets clients loose on its volumes and operations on their past, and ends
 * as the seed says. What must hold after every single step is here. Called by past-run.ts; next: past-process.ts.
 */
import { toVarveError, type VarveError } from "#shared/domain/errors.ts";
import type { BlockExport } from "#shared/ports/block-export.ts";
import { type ClientHost, type ClientOracle, SimulatedClient } from "../client.ts";
import type { Scheduler, SeededRandom } from "../scheduler.ts";
import { PastOperations } from "./past-operations.ts";
import { PastProcess, type ServedVolume } from "./past-process.ts";
import type { PastWorld } from "./past-world.ts";

export class PastLife {
  readonly world: PastWorld;
  readonly random: SeededRandom;
  readonly scheduler: Scheduler;
  readonly number: number;
  readonly operations: PastOperations;
  /** Everything answered must be in the logs that this life opens: the one before was killed, and the disk was well. */
  private readonly answeredMustBeThere: boolean;
  private process: PastProcess | null = null;
  private clients: VolumeClient[] = [];
  private clientCount = 0;
  private oldestLsns = new Map<string, number>();
  closing = false;
  haltedBy: VarveError | null = null;

  constructor(world: PastWorld, answeredMustBeThere: boolean) {
    this.world = world;
    this.random = world.random.fork();
    this.scheduler = world.scheduler;
    this.number = world.startLife();
    this.answeredMustBeThere = answeredMustBeThere;
    this.operations = new PastOperations(this);
    world.scheduler.afterStep = () => this.checkStep();
  }

  get opened(): PastProcess {
    if (this.process === null) throw new Error("the process of this life is not open");
    return this.process;
  }

  /** Volumes whose sessions serve now. */
  get serving(): readonly ServedVolume[] {
    const { host, volumes } = this.opened;
    const known = new Set(
      host.list().flatMap(({ name, condition }) => (condition === "deleting" ? [] : [name])),
    );
    return [...volumes.values()].filter(
      ({ name, session }) => known.has(name) && session.status().state === "serving",
    );
  }

  async open(): Promise<void> {
    await this.prepare();
    const { replicas, host } = this.opened;
    await replicas.start();
    await host.serve();
    for (const view of host.list()) {
      if (view.failure !== null)
        this.fail(`${view.name} was not opened: ${view.failure.message}`, view.failure);
    }
    this.world.throwFailure();
  }

  /** The data directory is open, no volume is served. */
  async prepare(): Promise<void> {
    this.process = await PastProcess.open(this.world, {
      halted: (volume, error) => {
        this.haltedBy ??= error;
        if (this.world.shared?.wasFull !== true) this.fail(`${volume} halted: ${error.message}`, error);
        this.note(`${volume} halted: ${error.message}`);
        this.world.count("volumes halted by a full disk");
      },
      answeredMustBeThere: () => this.answeredMustBeThere,
    });
    this.process.host.connectionsAre({ disconnectExport: (name) => this.disconnect(name) });
  }

  startClients(count: number): void {
    if (this.serving.length === 0) return;
    for (let index = 0; index < count; index++) this.startClientOf(this.random.pick(this.serving).name);
  }

  startClientOf(name: string): void {
    const volume = this.serving.find((one) => one.name === name);
    if (volume === undefined || this.closing) return;
    this.clientCount += 1;
    const client = new VolumeClient(`c${this.clientCount}@${name}`, this, volume);
    client.simulated.start();
    this.clients.push(client);
  }

  /** Runs clients and operations for so many steps. */
  async run(steps: number): Promise<void> {
    this.operations.start();
    await this.scheduler.run(steps);
    this.world.throwFailure();
  }

  /** No new requests; bucket and disk are well; everything that was asked for is answered. */
  async quiesce(): Promise<void> {
    this.operations.stop();
    for (const { simulated } of this.clients) simulated.stop();
    const busy = (): VolumeClient[] => this.clients.filter(({ simulated }) => !simulated.idle);
    const waits = (): boolean => busy().length > 0 || this.operations.busy.length > 0;
    try {
      await this.scheduler.while(waits, "a request or an operation");
    } catch (cause) {
      this.world.throwFailure();
      const who = [...busy().map(({ simulated }) => simulated.describeWait()), ...this.operations.busy];
      throw new Error(`${who.join(", ")} waits for ever`, { cause });
    }
    for (const { simulated } of this.clients) simulated.disconnect();
    this.clients = [];
    this.world.throwFailure();
  }

  /** Clients of a volume vanish as they are. */
  disconnect(name: string): void {
    const gone = this.clients.filter(({ volume }) => volume.name === name);
    for (const { simulated } of gone) simulated.disconnect();
    this.clients = this.clients.filter(({ volume }) => volume.name !== name);
  }

  disconnectAll(): void {
    this.operations.stop();
    for (const { simulated } of this.clients) simulated.disconnect();
    this.clients = [];
  }

  async close(): Promise<void> {
    this.closing = true;
    this.disconnectAll();
    await this.scheduler.until(this.opened.close(), "closing the process");
    this.world.throwFailure();
  }

  beginToClose(): void {
    this.closing = true;
    this.disconnectAll();
    this.opened.close().catch(() => undefined);
  }

  /** The process is gone. */
  end(): void {
    this.closing = true;
    this.operations.stop();
    this.scheduler.afterStep = () => undefined;
    this.scheduler.reset();
  }

  fail(what: string, cause?: unknown): void {
    this.world.fail(`life ${this.number}: ${what}`, cause);
  }

  note(what: string): void {
    this.world.note(what);
  }

  /** An operation on the past was refused; it needs a cause. */
  judgeRefusal(what: string, cause: unknown, volume: ServedVolume | null): VarveError {
    const error = toVarveError(cause, what);
    this.note(`${what}: ${error._tag} (${error.kind}): ${error.message}`);
    this.world.count(`refused: ${error._tag}`);
    // A lost answer makes a collector take its own lease for another's: it ends, and comes back.
    const isRefusal =
      error.kind === "Retry" || error.kind === "Full" || error._tag === "CollectorFencedError";
    const bucket = (isRefusal && this.world.bucketMayFail) || this.world.watch.isOfLost(error);
    const gone =
      volume?.ledger.deleted === true ||
      volume?.session.status().state === "closed" ||
      this.operations.busy.includes(`delete of ${volume?.name}`);
    // Its grace may end while it is asked for.
    const buried = error._tag === "UnknownVolumeError" && this.operations.busy.includes("collect");
    // Retention may pass a point between its choice and its use.
    const isTrimmed = error._tag === "PointNotThere" && volume?.archive?.manifest()?.retainedFromLsn !== 0;
    if (
      !bucket &&
      !gone &&
      !buried &&
      !(isTrimmed && this.world.trims) &&
      !this.closing &&
      !harmlessRefusals.has(error._tag)
    ) {
      this.fail(`${what} was refused with ${error._tag} (${error.kind}): ${error.message}`, error);
    }
    return error;
  }

  /** What must hold at every moment. */
  private checkStep(): void {
    this.world.throwFailure();
    if (this.process === null) return;
    for (const [id, { name, session, archive }] of this.process.volumes) {
      const { log, image, state } = session.status();
      if (state === "closed") continue;
      if (image.appliedLsn > log.durableLsn) {
        this.fail(`${name}: the image is ahead: applied ${image.appliedLsn}, durable ${log.durableLsn}`);
      }
      if (log.oldestLsn > image.checkpointLsn + 1) {
        this.fail(
          `${name}: the log was released to LSN ${log.oldestLsn}, the checkpoint is at ${image.checkpointLsn}`,
        );
      }
      if (archive !== null) this.opened.volumes.get(id)?.ledger.noteHeld(archive.status().heldLsn);
      if (archive !== null && archive.status().archivedLsn > log.durableLsn) {
        this.fail(
          `${name}: archived up to LSN ${archive.status().archivedLsn}, durable is ${log.durableLsn}`,
        );
      }
      const before = this.oldestLsns.get(id) ?? log.oldestLsn;
      this.oldestLsns.set(id, log.oldestLsn);
      if (log.oldestLsn > before) this.judgeRelease(id, name, log.oldestLsn - 1);
    }
    this.world.throwFailure();
  }

  /** Log up to `lsn` went: the bucket alone must be enough from now on, whatever happens to it within its own promise. */
  private judgeRelease(id: string, name: string, lsn: number): void {
    this.world.count("log releases judged");
    const why = this.world.watch.whyNotHeld(id, lsn);
    if (why !== null) this.fail(`${name}: the log was released up to LSN ${lsn}, but ${why}`);
  }
}

/** Answers that say no with good reason, whatever the weather. */
const harmlessRefusals: ReadonlySet<string> = new Set([
  "VolumeBusyError",
  "VolumeAttachedError",
  "VolumeNeededError",
  "VolumeSettlingError",
  "AlreadyRunningError",
  "ResidencyFullError",
  // Its archive is not open yet, because the bucket was away at the start.
  "VolumeNotArchivedError",
  "HostClosingError",
  // Extents that are not here, a rollback meanwhile: a later base is taken by itself.
  "BaseGivenUp",
]);

/** A client of one volume, and what it needs to know of the life around it. */
class VolumeClient implements ClientHost {
  readonly simulated: SimulatedClient;
  readonly volume: ServedVolume;
  readonly oracle: ClientOracle;
  readonly scheduler: Scheduler;
  readonly durability: "write" | "flush";
  private readonly life: PastLife;
  private wasRemote = false;

  constructor(name: string, life: PastLife, volume: ServedVolume) {
    this.life = life;
    this.volume = volume;
    this.oracle = volume.ledger.clients;
    this.scheduler = life.scheduler;
    this.durability = volume.session.status().durability;
    const { profile } = life.world.plan;
    const memory = life.opened.store.allocateSlab(Math.ceil(profile.writeBytesMax / 4096) * 4096);
    this.simulated = new SimulatedClient(name, this, profile, life.random.fork(), memory);
  }

  get halted(): boolean {
    return this.volume.session.status().state === "halted";
  }

  openExport(): BlockExport {
    return this.volume.session.openExport("simulated");
  }

  fail(what: string): void {
    this.life.fail(what);
  }

  note(what: string): void {
    this.life.note(what);
  }

  /** Writes never wait for the bucket: until the log is full they succeed, whatever the weather. */
  judgeError(what: string, error: VarveError): { readonly refused: boolean } {
    if (this.life.closing) return { refused: false };
    if (what.includes(" cache ") && this.readMayFail()) return { refused: true };
    const { log } = this.volume.session.status();
    const { logBytesMax, segmentBytes } = this.life.world.plan.log;
    const { shared } = this.life.world;
    if (this.halted && shared?.wasFull === true) return { refused: error.kind === "Full" };
    const isFull =
      error.kind === "Full" && (shared?.mayBeFull === true || log.diskBytes + 2 * segmentBytes > logBytesMax);
    if (!isFull) this.fail(`${what} was answered with ${error._tag} (${error.kind}): ${error.message}`);
    this.life.world.count(`requests refused: ${error._tag}`);
    return { refused: true };
  }

  /** A read fails only where its bytes are in the bucket only, and that answers badly. */
  readMayFail(): boolean {
    const residency = this.volume.session.extents.residency();
    this.wasRemote ||= residency !== null && residency.localExtents < residency.extents;
    const { world } = this.life;
    return this.life.closing || ((world.bucketMayFail || world.watch.lost.size > 0) && this.wasRemote);
  }
}
