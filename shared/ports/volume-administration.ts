/*
 * What the HTTP API and the command line see of the volumes of one machine: the port between services/api, services/cli
 * and the volume host (services/gateway/engine/volume-host.ts) that implements it. Changes are made one after the other;
 * each either happens wholly or leaves everything as it was (docs/specs/volume-host.md). All failures are VarveErrors.
 */
import type { VolumeOrigin } from "#shared/domain/archive.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import type { HistoryPolicy } from "#shared/domain/history-record.ts";
import type { ReadPolicy, VolumeDurability } from "#shared/domain/volume.ts";
import type { OrdersChange, VolumeOrders } from "#shared/domain/volume-orders.ts";

/**
 * serving: clients may attach. halted: log or image failed while serving; reads go on, writes fail. failed: could not be
 * opened, see failure. busy: being changed, clients are asked to come again. closed: nothing is served here (offline).
 * deleting: gone for clients, but its files stay until the bucket holds all of it (docs/specs/volume-host.md).
 */
export type VolumeCondition = "serving" | "halted" | "failed" | "busy" | "closed" | "deleting";

/** Figures of an open volume. */
export interface VolumeFigures {
  readonly line: string;
  readonly epoch: number;
  readonly oldestLsn: number;
  readonly lastLsn: number;
  readonly durableLsn: number;
  readonly appliedLsn: number;
  readonly checkpointLsn: number;
  readonly imageAllocatedBytes: number;
  readonly logDiskBytes: number;
  /** A log that takes so much refuses writes. */
  readonly logBytesMax: number;
  readonly overlayRanges: number;
  readonly counters: Readonly<Record<string, number>>;
}

/** What a volume keeps of its past, and where its bytes are. */
export interface VolumePastView {
  readonly policy: HistoryPolicy;
  readonly origin: VolumeOrigin | null;
  readonly snapshots: number;
  /** Points that clones or a rollback still read from. */
  readonly pins: number;
  /** off: `--bucket none`. away: not opened yet, the log is kept. */
  readonly archive: "running" | "waiting for the bucket" | "stopped" | "away" | "off" | "closed";
  readonly archivedLsn: number;
  readonly heldLsn: number;
  /** Every moment from this entry on opens, and older snapshots; null where that is not known here. */
  readonly retainedFromLsn: number | null;
  /** Limit of background fills; null: none, or not set here. */
  readonly fillBytesPerSecond: number | null;
  readonly archiveError: VarveError | null;
  /** Extents of the image; null while the volume is not open. */
  readonly extents: {
    readonly total: number;
    readonly local: number;
    readonly remote: number;
    readonly partial: number;
  } | null;
  /** Job that fetches what is not local, or the last one. */
  readonly job: string | null;
}

export interface VolumeView {
  readonly id: string;
  readonly name: string;
  /** One line for export lists. */
  readonly description: string;
  readonly sizeBytes: number;
  readonly durability: VolumeDurability;
  /** One machine's is always strict. */
  readonly reads: ReadPolicy;
  readonly orders: VolumeOrders;
  readonly createdAtMs: number;
  readonly condition: VolumeCondition;
  /** Of one that is deleting: until the bucket holds it, in ms, as far as is known; null, or not there: nobody knows. */
  readonly heldInMs?: number | null;
  /** Why it halted or failed. */
  readonly failure: VarveError | null;
  readonly attachedClients: number;
  readonly imagePath: string;
  readonly logPath: string;
  readonly figures: VolumeFigures | null;
  /** While it is moved into a cluster: its id in the data directory that it comes from. */
  readonly arrivesFrom?: string;
  /** Null where the history file could not be read. */
  readonly past: VolumePastView | null;
}

export interface NewVolume {
  readonly name: string;
  readonly sizeBytes: number;
  readonly durability: VolumeDurability;
  /** Not there: what the server does by itself, available in a cluster, strict on one machine. */
  readonly reads?: ReadPolicy | undefined;
  /** Images on as many storage nodes, in a cluster; else 1. */
  readonly replicas?: number;
  readonly policy?: Partial<HistoryPolicy>;
  readonly orders?: Partial<VolumeOrders>;
}

/** What `image check` found. Nothing is changed by a check. */
export interface ImageReport {
  readonly name: string;
  /** True where image, checkpoint and log agree. */
  readonly clean: boolean;
  /** One line per finding, for people. */
  readonly findings: readonly string[];
  readonly fields: Readonly<Record<string, string | number | boolean>>;
}

export interface VolumeAdministration {
  /** All volumes, sorted by name. */
  list(): readonly VolumeView[];
  /** Throws UnknownVolumeError (Invalid). */
  show(name: string): VolumeView;
  create(volume: NewVolume): Promise<VolumeView>;
  /**
   * Refused (VolumeAttachedError) while a client is attached. The data is gone when it resolves, or, where a bucket has it and may still
   * lose it, as soon as the bucket holds it: until then the volume is `deleting`.
   */
  delete(name: string): Promise<void>;
  /**
   * Grows at any time (attached clients learn the size when they reconnect). A smaller size is refused without `shrink`
   * and while a client is attached.
   */
  resize(name: string, sizeBytes: number, shrink: boolean): Promise<VolumeView>;
  /** Refused while a client is attached. */
  setDurability(name: string, durability: VolumeDurability): Promise<VolumeView>;
  /**
   * Holds for clients that are attached, too. A gateway that does not reach the others goes by what it knew. Rejects Invalid where
   * the server can't read so.
   */
  setReads(name: string, reads: ReadPolicy): Promise<VolumeView>;
  /** At once; where its replicas are stays as it is. Rejects Invalid (VolumeOrdersError) with every mistake. */
  setOrders(name: string, change: OrdersChange): Promise<VolumeView>;
  checkImage(name: string): Promise<ImageReport>;
  /** Keeps a change that somebody else made to the image: appends it to the log. */
  adoptImage(name: string): Promise<ImageReport>;
  /** Throws such a change away: fills the image from the log again. */
  discardImage(name: string): Promise<ImageReport>;
}
