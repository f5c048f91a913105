/*
 * One volume as a cluster gateway serves it: takes its lease when a client comes, opens its session, and gives both up when nobody
 * uses it for a while, when the lease is lost, or when the session halts. Owned by cluster-exports.ts; below it volume-session.ts
 * over remote replicas.
 *
 *   closed ─client─► opening ─► serving ─idle, drain─► closing ─► closed     serving ─lease lost, halted─► ending ─► closed
 */
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { BlockExport } from "#shared/ports/block-export.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import type { Lease, Leases } from "#shared/ports/lease.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import { StrictReads } from "./strict-reads.ts";
import type { VolumeSession, VolumeSessionStatus } from "./volume-session.ts";

/** What is needed of a session. */
export type ClusterSession = Pick<
  VolumeSession,
  "openExport" | "attachedClients" | "status" | "close" | "fence"
>;

export interface ClusterVolumeSetting {
  readonly gateway: string;
  /** Where clients of this gateway connect. */
  readonly address: string;
  readonly clock: Clock;
  readonly leases: Leases;
  readonly catalog: Pick<VolumeCatalog, "fetch">;
  /** Opens the log with the lease's epoch and waits for a replica. `onHalted`: as VolumeSessionOptions. `giveUp`: as ClusterVolume's. */
  openSession(
    record: VolumeRecord,
    lease: Lease,
    onHalted: (error: VarveError) => void,
    giveUp: (isForced: boolean) => Promise<number>,
  ): Promise<ClusterSession>;
  /** Whether reads of a volume are strict now. */
  isStrict(volumeId: string): boolean;
  /** Cuts the connections to the volume's export. */
  disconnect(name: string): void;
  onNote(text: string): void;
}

interface Serving {
  readonly lease: Lease;
  readonly session: ClusterSession;
  readonly strictReads: StrictReads;
}

export interface ClusterVolumeStatus {
  readonly session: VolumeSessionStatus;
  readonly leaseRemainingMs: number;
  /** Strict reads that had to wait for proof. */
  readonly unprovenReads: number;
}

/** A session that nobody uses is closed after this, so that the volume can move. */
const idleMs = 30_000;
/** Clients of a session that ended get their errors, then are cut off. */
const lastAnswersMs = 500;

export class ClusterVolume {
  readonly #record: VolumeRecord;
  readonly #setting: ClusterVolumeSetting;
  readonly #whenClosed: () => void;
  #opening: Promise<Serving> | null = null;
  #serving: Serving | null = null;
  #ending: Promise<void> | null = null;
  #idleTimer: Timer | null = null;
  #failure: VarveError | null = null;

  constructor(record: VolumeRecord, setting: ClusterVolumeSetting, whenClosed: () => void) {
    this.#record = record;
    this.#setting = setting;
    this.#whenClosed = whenClosed;
  }

  async open(): Promise<BlockExport> {
    if (this.#ending !== null) throw ending(this.#record.name, this.#failure);
    this.#opening ??= this.#begin();
    const { session, lease, strictReads } = await this.#opening;
    if (this.#ending !== null) throw ending(this.#record.name, this.#failure);
    // Whoever is here goes on reading; who comes now may have written by the gateway that took it meanwhile.
    if (lease.remainingMs() <= 0) throw ranOut(this.#record.name);
    this.#watchIdle();
    return session.openExport(`served by gateway ${this.#setting.gateway}`, undefined, strictReads);
  }

  status(): ClusterVolumeStatus | null {
    if (this.#serving === null) return null;
    const { session, lease, strictReads } = this.#serving;
    const leaseRemainingMs = Math.round(lease.remainingMs());
    return { session: session.status(), leaseRemainingMs, ...strictReads.counters };
  }

  /**
   * Somebody else wants to write: closes the session and lets the lease go. Clients are cut off where it is forced, as many as it resolves
   * with; else it is refused while there are any.
   */
  async giveUp(isForced: boolean): Promise<number> {
    if (this.#serving === null) await this.#opening?.catch(() => undefined);
    const clients = this.#serving?.session.attachedClients ?? 0;
    if (clients > 0 && !isForced) throw stillAttached(this.#record.name, clients);
    // Nobody new comes in from here on; what waits is cut off before it is answered, so that clients ask again and see no error.
    const ending = this.#end(null);
    this.#setting.disconnect(this.#record.name);
    await ending;
    return clients;
  }

  /** Closes the session, then lets the lease go. Never rejects. */
  async close(): Promise<void> {
    await this.#opening?.catch(() => undefined);
    await this.#end(null);
  }

  async #begin(): Promise<Serving> {
    const { leases, catalog, gateway, address, clock } = this.#setting;
    let lease: Lease | null = null;
    try {
      lease = await leases
        .take(`volume.${this.#record.id}`, { holder: gateway, address })
        .catch((cause: unknown) => {
          throw servedElsewhere(this.#record.name, cause);
        });
      // Whoever deletes it holds the lease while that is written (ClusterVolumes.delete), and this process may not have heard of it yet.
      const stored = await catalog.fetch(this.#record.id);
      if (stored === null || stored.state === "deleting" || stored.state === "settling")
        throw deleted(this.#record.name);
      const session = await this.#setting.openSession(
        this.#record,
        lease,
        (error) => this.#halted(error),
        async (isForced) => this.giveUp(isForced),
      );
      const wanted = (): boolean => this.#setting.isStrict(this.#record.id);
      const serving = { lease, session, strictReads: new StrictReads({ clock, lease, wanted }) };
      this.#serving = serving;
      // A lease that was lost meanwhile tells at once.
      lease.onLost((error) => {
        session.fence(error);
        this.#halted(error);
      });
      // It may have halted before it was known here.
      if (this.#failure !== null) void this.#end(this.#failure);
      return serving;
    } catch (cause) {
      await lease?.release();
      this.#whenClosed();
      throw cause;
    }
  }

  #halted(error: VarveError): void {
    if (this.#ending !== null) return;
    this.#setting.onNote(`warning: volume ${this.#record.name} is served no more: ${error.message}`);
    this.#failure = error;
    // Halted while it opens: the open fails by itself.
    if (this.#serving === null) return;
    // Somebody else serves it now, or soon: clients that are cut off before an error reaches them ask there again.
    if (error.kind === "Fenced") this.#setting.disconnect(this.#record.name);
    this.#serving.strictReads.fail(error);
    void this.#end(error);
  }

  #end(failure: VarveError | null): Promise<void> {
    this.#ending ??= this.#shutDown(failure);
    return this.#ending;
  }

  async #shutDown(failure: VarveError | null): Promise<void> {
    this.#idleTimer?.cancel();
    const serving = this.#serving;
    if (serving !== null) {
      if (failure !== null) {
        await new Promise<void>((resolve) => {
          this.#setting.clock.after(lastAnswersMs, resolve);
        });
        this.#setting.disconnect(this.#record.name);
      }
      await serving.session.close().catch((cause: unknown) => {
        if (failure === null) {
          this.#setting.onNote(
            `warning: closing ${this.#record.name}: ${toVarveError(cause, "close").message}`,
          );
        }
      });
      await serving.lease.release();
    }
    this.#serving = null;
    this.#whenClosed();
  }

  /** One timer while it is open: looks whether anybody is there. */
  #watchIdle(): void {
    if (this.#idleTimer !== null) return;
    const look = (): void => {
      if (this.#ending !== null || this.#serving === null) return;
      if (this.#serving.session.attachedClients === 0) void this.#end(null);
      else this.#idleTimer = this.#setting.clock.after(idleMs, look);
    };
    this.#idleTimer = this.#setting.clock.after(idleMs, look);
  }
}

/** The same in words for whoever knows the volume by its name. */
function servedElsewhere(name: string, cause: unknown): unknown {
  if (!(cause instanceof VarveError) || cause._tag !== "LeaseHeldError") return cause;
  const { holder, address } = cause.fields;
  return new VarveError(
    "ServedElsewhere",
    "Retry",
    `volume ${name} is served by gateway ${holder} at ${address}`,
    {
      hint: `Connect there, or, if that gateway must give it up: varve volume takeover ${name} --force`,
      fields: cause.fields,
      cause,
    },
  );
}

function stillAttached(name: string, clients: number): VarveError {
  const connections = `${clients} connection${clients === 1 ? "" : "s"}`;
  return new VarveError("VolumeAttachedError", "Invalid", `volume ${name} has ${connections}`, {
    hint: "Disconnect its clients first.",
    fields: { name, attachedClients: clients },
  });
}

function deleted(name: string): VarveError {
  return new VarveError("UnknownVolumeError", "Invalid", `volume ${name} was deleted meanwhile`, {
    hint: "What there is: varve volume list.",
    fields: { name },
  });
}

function ranOut(name: string): VarveError {
  return new VarveError("VolumeMoving", "Retry", `this gateway's lease of volume ${name} ran out`, {
    hint: "Connect again in a moment. If it stays so, look whether this machine reaches the NATS servers.",
    fields: { name },
  });
}

function ending(name: string, cause: VarveError | null): VarveError {
  return new VarveError("VolumeMoving", "Retry", `volume ${name} is being closed on this gateway`, {
    hint: "Connect again in a moment.",
    cause: cause ?? undefined,
  });
}
