/*
 * Replicas whose extents may be remote: where the bytes of such extents come from, and what can be asked of a replica
 * beside reads and applies. The raw image implements ReplicaExtents; filler and tiering (services/storage/engine/) and
 * the volume session call it; the volume host gives RemoteSources at attach. See docs/specs/residency.md.
 */
import type { ExtentRun } from "#shared/domain/archive.ts";
import type { PointSource } from "./history.ts";
import type { Slab } from "./slab.ts";

/** A disk as it was at an LSN, by name: what remote extents are read from. The volume may be another one (a clone's parent). */
export interface RemotePoint {
  readonly volumeId: string;
  readonly lsn: number;
}

export interface RemoteSources {
  /** Opens a point. Called when its first byte is needed, and again after a failure; the replica closes what it got. */
  open(point: RemotePoint): Promise<PointSource>;
  /**
   * Extents that differ between the point `toLsn` and the disk at the rebase entry `lsn`; at least those. Null: not known, all
   * count as changed. Asked while the entry is applied, so it answers at once.
   */
  changedExtents?(toLsn: number, lsn: number): readonly ExtentRun[] | null;
}

export interface ResidencyState {
  /** The image file's present path: ends in `.partial` while any extent is not local. */
  readonly path: string;
  readonly extents: number;
  /** Wholly in the file. */
  readonly localExtents: number;
  /** Nothing of it in the file. */
  readonly remoteExtents: number;
  /** Remote, with newer bytes in the file. */
  readonly partialExtents: number;
  /** Points that remote extents, or the last checkpoint, are read from: they must stay. Empty where all is local and recorded so. */
  readonly points: readonly RemotePoint[];
  readonly counters: ResidencyCounters;
}

export interface ResidencyCounters {
  readonly filledExtents: number;
  readonly filledBytes: number;
  readonly evictedExtents: number;
  readonly remoteReads: number;
  readonly remoteReadBytes: number;
  readonly remoteReadFailures: number;
}

export interface EvictRequest {
  /** The point that the extents will be read from: this volume at an LSN that a held base serves. */
  readonly point: RemotePoint;
  /** The base's `s`: only extents whose last applied entry is not after it are evicted. */
  readonly baseLsn: number;
  readonly extents: readonly number[];
}

/** What a scrub does with local extents: reads the file itself and puts right what is wrong in it (docs/specs/residency.md#mending). */
export interface ExtentMending {
  /** The greatest LSN of an applied entry that may have changed the extent; where nothing did since the attach, the LSN of that. */
  touchedLsn(extent: number): number;
  /** The file's bytes, which counts as no use of them. Only what is local counts. */
  read(slab: Slab, start: number, length: number, offset: number): Promise<void>;
  /**
   * Writes what the file has otherwise than `right`, the extent as it was at `lsn`, which is applied. False, and nothing is written, where
   * an entry after it touched the extent or not all of it is local. `scratch` has an extent's size.
   */
  mend(extent: number, lsn: number, right: Slab, scratch: Slab): Promise<boolean>;
  /** Resolves when what was mended is on the disk: a checkpoint. */
  record(): Promise<void>;
}

/** Residency of an attached replica, extent by extent (limits.extentBytes). */
export interface ReplicaExtents {
  /** So much is partly local that applies should wait until some of it is filled (limits.partialExtentsMax). */
  readonly crowded: boolean;
  readonly mending: ExtentMending;
  residency(): ResidencyState;
  /** True: every byte of the extent is in the file. Also for extents past the end. */
  isLocal(extent: number): boolean;
  /** The same for a range of bytes. */
  isRangeLocal(offset: number, length: number): boolean;
  /** The first extent at or after `from` that is not local, or -1. */
  nextRemote(from: number): number;
  /** At most so many partly local extents, to be filled first where it is crowded. */
  partialExtents(most: number): readonly number[];
  /**
   * Fetches what is missing of an extent and makes it local; resolves with the bytes that were written, 0 where nothing was
   * missing. Rejects Retry while the bucket is away, Full where the disk is, and changes nothing then.
   */
  fill(extent: number): Promise<number>;
  /** Makes a range local: NBD CACHE. */
  cache(offset: number, length: number): Promise<void>;
  /**
   * Gives extents back to the bucket; resolves with how many. Those that are not wholly local, were written after
   * `baseLsn` or are written meanwhile stay. The checkpoint says remote before the first byte goes.
   */
  evict(request: EvictRequest): Promise<number>;
  /** Extents that were read remotely since the last call, newest first, at most 256: what the filler takes first. */
  takeRecentReads(): readonly number[];
  /** Calls back when an extent was read remotely, a rollback made some remote, or it is crowded. One listener; it only takes note. */
  onWanted(listener: () => void): void;
  /** Extents that may be evicted to a base, hold data, and were not used since `beforeMs`; coldest first. */
  coldExtents(baseLsn: number, beforeMs: number, most: number): Promise<readonly number[]>;
  /** Reads count as use from now on, or no longer. Writes always do. */
  trackReads(on: boolean): void;
  /** Keeps what is known of last use for the next attach. Never rejects. */
  saveLastUse(): Promise<void>;
}
