/*
 * What the rest of a process sees of the archiver: one VolumeArchive per open volume, between the session's log and the
 * bucket. services/archiver/layer.ts implements it; the volume host opens one beside each session and asks it before hot log
 * is released. See docs/specs/archive.md.
 */
import type {
  BaseRef,
  ManifestPolicy,
  PointPin,
  SnapshotRecord,
  VolumeManifest,
  VolumeOrigin,
} from "#shared/domain/archive.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import type { TakenLine } from "#shared/domain/history-record.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { HotLog } from "./history.ts";
import type { AllocationRun } from "./replica-image.ts";
import type { Slab } from "./slab.ts";

/** Facts of a volume that go into each manifest; read at the moment of publishing. */
export interface ManifestFacts extends ManifestPolicy {
  readonly snapshots: readonly SnapshotRecord[];
  readonly pins: readonly PointPin[];
  readonly origin: VolumeOrigin | null;
  /** See VolumeManifest.beginBytes. */
  readonly beginBytes: number;
  readonly historyMs: number;
  readonly deletedAtMs: number | null;
}

/** The replica as bases are read from it: never through an overlay. */
export interface BaseImage {
  /** `begunLsn`: the greatest LSN whose apply had begun; appliedLsn: the greatest whose apply has ended. */
  state(): { readonly sizeBytes: number; readonly appliedLsn: number; readonly begunLsn: number };
  read(slab: Slab, start: number, length: number, offset: number): Promise<void>;
  allocation(offset: number, length: number, runsMax: number): readonly AllocationRun[];
  /** True where every extent's bytes are in the local file. A base is read from such images only, or extent by extent. */
  isLocal(extent: number): boolean;
  /**
   * For images on other machines: finds out what allocation() will answer, from a replica that applied at least `lsn`, and has all
   * reads that follow come from such ones. Before each base; rejects Retry where there is none.
   */
  survey?(lsn: number): Promise<void>;
}

/** A batch that became durable, as a writer's own draft or as read from the log. Its record is valid during the call only. */
export interface DurableBatch {
  readonly firstLsn: number;
  readonly lastLsn: number;
  readonly entryCount: number;
  readonly kinds: readonly number[];
  /** Entries that are no ranges (epoch, mark, resize, rebase); only how many counts. */
  readonly values: { readonly size: number };
  /** The record is at the begin of the slab. */
  readonly slab: { readonly bytes: Uint8Array };
  readonly recordBytes: number;
  readonly previousChecksum: bigint;
  readonly checksum: bigint;
}

/** The hot log as the archiver follows it. */
export interface ArchivedLog extends HotLog {
  /**
   * `listener` is told of each batch that became durable, in order, on the event loop, while the batch's slab still holds its
   * record: it does next to nothing. Until the returned function is called.
   */
  follow(listener: (batch: DurableBatch) => void): () => void;
  /** Bytes that the log takes on its disk, and how many it may. */
  room(): { readonly diskBytes: number; readonly limitBytes: number };
}

export interface ArchiveSubject {
  readonly record: VolumeRecord;
  /** This tenure's number, greater than every earlier one of the line: the host raised and stored it before open(). */
  readonly archiverEpoch: number;
  /** The line that a rescue or an undelete on this machine took of the volume. */
  readonly taken?: TakenLine | undefined;
  /** Present facts; the volume host changes them and then calls VolumeArchive.factsChanged(). */
  facts(): ManifestFacts;
  readonly log: ArchivedLog;
  readonly image: BaseImage;
  /** Greatest LSN that the archiver holds in the bucket rose: log up to it may go. */
  onHeld(lsn: number): void;
  /** The volume was rescued elsewhere, found after open(): nothing is archived any more, the volume must not be served. */
  onFenced(error: VarveError): void;
  /** The volume was closed while open() still waited for the bucket: it gives up (Retry) and touches nothing more. */
  abandoned(): boolean;
  /** A line for the operator: the bucket is away, back, the log is filling, history was given up. */
  onNote(text: string): void;
}

/** What a base needs in the bucket beside what the base that it was built on needs. */
export interface BaseObjects {
  /** Stored with it: length, and the last 32 bytes, which are the SHA-256 of the rest. */
  readonly stored: readonly { readonly key: string; readonly bytes: number; readonly digest: Uint8Array }[];
  /** Named by it, stored with others. */
  readonly borrowedKeys: readonly string[];
}

export interface ArchiveStatus {
  readonly state: "running" | "waiting for the bucket" | "stopped";
  readonly archivedLsn: number;
  /** Safe in the bucket, checked after the settle time: log up to here may be released. */
  readonly heldLsn: number;
  readonly lastBaseLsn: number;
  readonly error: VarveError | null;
  readonly counters: Readonly<Record<string, number>>;
}

export interface VolumeArchive {
  status(): ArchiveStatus;
  /** The newest base whose objects, and the log up to its `e`, are held; null where there is none. Evictions go by it. */
  heldBase(): BaseRef | null;
  /** Nothing may leave the bucket on the strength of a base for which this is false. */
  isBaseHeld(key: string): boolean;
  /**
   * A base was published by amend(), with these objects: from now on it is looked after like the archiver's own. It is held once the
   * settle time is over and all of it is there, and leaves the manifest where something is missing.
   */
  watchBase(base: BaseRef, objects: BaseObjects): void;
  /** The last manifest that was published; null before the first. */
  manifest(): VolumeManifest | null;
  /** Seals and publishes everything up to `lsn` now; resolves when a manifest names it. */
  archive(lsn: number): Promise<void>;
  /** Publishes present facts: resolves when a manifest with them is in the bucket. */
  factsChanged(): Promise<void>;
  /**
   * Publishes the next manifest after `change`, which is called at the moment of publishing, in the order of all other changes, with
   * the facts that will be published beside it, and is pure; where it throws, nothing is published and the promise rejects. Line, number and time are set after it.
   */
  amend(change: (manifest: VolumeManifest) => VolumeManifest): Promise<VolumeManifest>;
  /** Takes a base of all that is durable now (before a rollback, for a long-lived snapshot); resolves with it when published. */
  takeBase(): Promise<{ readonly s: number; readonly e: number }>;
  /** Until the bucket holds all that was published, in ms, where it loses nothing; 0: it does; null: nothing is looked at any more. */
  heldInMs(): number | null;
  /** Ends at once, with nothing more archived: somebody else does it now. */
  stop(error: VarveError): void;
  /** Finishes uploads under way, archives the rest where the bucket answers within the limit, stops. Idempotent. */
  close(): Promise<void>;
}

export interface ArchiverHome {
  /** Begins under the subject's archiver epoch; pending while the bucket is away. Rejects Fenced where the bucket holds a newer line ("rescued elsewhere"). */
  open(subject: ArchiveSubject): Promise<VolumeArchive>;
  /** Keys that are uploaded or on their way and that no published manifest names yet: the collector keeps them. */
  uploadsInFlight(): Iterable<string>;
  close(): Promise<void>;
}
