/*
 * One volume as the host holds it: its catalogue record, its session while it is open, why it is not. Called by
 * volume-host.ts only, which orders the changes; here is what one volume may do in which state. The parts that touch
 * files come through VolumeParts, so that the host runs on memory adapters in tests.
 */
import { exactByteSize } from "#shared/domain/byte-size.ts";
import type { VolumePaths } from "#shared/domain/data-layout.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { BlockExport } from "#shared/ports/block-export.ts";
import type {
  ImageReport,
  VolumeCondition,
  VolumeFigures,
  VolumeView,
} from "#shared/ports/volume-administration.ts";
import type { VolumeSession, VolumeSessionStatus } from "./volume-session.ts";

/** What the host needs of a session. */
export type HostedSession = Pick<
  VolumeSession,
  "sizeBytes" | "attachedClients" | "openExport" | "resize" | "status" | "close"
>;

export interface VolumeParts {
  /** Makes an empty image of the record's size; its directory exists and is empty. */
  createImage(record: VolumeRecord, paths: VolumePaths): Promise<void>;
  openSession(record: VolumeRecord, paths: VolumePaths): Promise<HostedSession>;
  /** Works on the files of a volume whose session is closed. */
  image(
    operation: "check" | "adopt" | "discard",
    record: VolumeRecord,
    paths: VolumePaths,
  ): Promise<ImageReport>;
}

export class HostedVolume {
  readonly paths: VolumePaths;
  record: VolumeRecord;
  private readonly parts: VolumeParts;
  private session: HostedSession | null = null;
  private failure: VarveError | null = null;
  private busy = false;

  constructor(record: VolumeRecord, paths: VolumePaths, parts: VolumeParts) {
    this.record = record;
    this.paths = paths;
    this.parts = parts;
  }

  get name(): string {
    return this.record.name;
  }

  get description(): string {
    return `${exactByteSize(this.record.sizeBytes)} durability=${this.record.durability}`;
  }

  async open(): Promise<void> {
    const session = await this.parts.openSession(this.record, this.paths);
    this.session = session;
    this.failure = null;
    // The log's resize entries are the truth; the catalogue may be one crash behind.
    if (session.sizeBytes !== this.record.sizeBytes) {
      this.record = { ...this.record, sizeBytes: session.sizeBytes };
    }
  }

  /** Opens; a failure is kept for view() and for whoever wants to attach. */
  async openKept(): Promise<void> {
    try {
      await this.open();
    } catch (cause) {
      this.failure = toVarveError(cause, `open volume ${this.name}`);
    }
  }

  async close(): Promise<void> {
    const { session } = this;
    this.session = null;
    await session?.close();
  }

  /** close(), where a volume that halted before need not say so again. */
  async closeKnown(): Promise<void> {
    const known = this.session?.status().error ?? null;
    try {
      await this.close();
    } catch (cause) {
      if (cause !== known) throw cause;
    }
  }

  openExport(): BlockExport {
    if (this.busy) {
      throw new VarveError("VolumeBusyError", "Retry", `volume ${this.name} is being changed`, {
        hint: "Try again in a moment.",
        fields: { name: this.name },
      });
    }
    if (this.session === null) throw this.whyClosed();
    return this.session.openExport(this.description);
  }

  /** Runs `work` on the open session, or, offline, on one opened for it. */
  async withSession<T>(work: (session: HostedSession) => Promise<T>): Promise<T> {
    if (this.session !== null) return await work(this.session);
    if (this.failure !== null) throw this.failure;
    await this.open();
    try {
      return await work(this.session ?? this.notOpen());
    } finally {
      await this.close();
    }
  }

  /** New clients are told to come again while `work` runs. */
  async whileBusy<T>(work: () => Promise<T>): Promise<T> {
    this.busy = true;
    try {
      return await work();
    } finally {
      this.busy = false;
    }
  }

  requireDetached(what: string): void {
    const attached = this.session?.attachedClients ?? 0;
    if (attached === 0) return;
    throw new VarveError(
      "VolumeAttachedError",
      "Invalid",
      `volume ${this.name} has ${attached} connection${attached === 1 ? "" : "s"}; it is not ${what}`,
      {
        hint: `Disconnect its clients first: varve volume show ${this.name} lists them.`,
        fields: { name: this.name, attachedClients: attached },
      },
    );
  }

  view(): VolumeView {
    const status = this.session?.status() ?? null;
    const { record } = this;
    return {
      id: record.id,
      name: record.name,
      description: this.description,
      sizeBytes: record.sizeBytes,
      durability: record.durability,
      createdAtMs: record.createdAtMs,
      condition: this.condition(status),
      failure: status?.error ?? this.failure,
      attachedClients: status?.attachedClients ?? 0,
      imagePath: this.paths.image,
      logPath: this.paths.log,
      figures: status === null ? null : figuresOf(status),
    };
  }

  private condition(status: VolumeSessionStatus | null): VolumeCondition {
    if (this.busy) return "busy";
    if (status !== null) return status.state;
    return this.failure === null ? "closed" : "failed";
  }

  private whyClosed(): VarveError {
    return (
      this.failure ??
      new VarveError("VolumeClosedError", "Retry", `volume ${this.name} is not open yet`, {
        hint: "Try again in a moment.",
        fields: { name: this.name },
      })
    );
  }

  private notOpen(): never {
    throw this.whyClosed();
  }
}

function figuresOf(status: VolumeSessionStatus): VolumeFigures {
  return {
    line: status.log.line,
    epoch: status.log.epoch,
    oldestLsn: status.log.oldestLsn,
    lastLsn: status.log.lastLsn,
    durableLsn: status.log.durableLsn,
    appliedLsn: status.image.appliedLsn,
    checkpointLsn: status.image.checkpointLsn,
    imageAllocatedBytes: status.image.allocatedBytes,
    logDiskBytes: status.log.diskBytes,
    overlayRanges: status.overlayRanges,
    counters: status.counters,
  };
}
