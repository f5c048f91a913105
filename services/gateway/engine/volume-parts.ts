/*
 * What the host of volumes needs of others: sessions, files, the past, and what all its volumes share. services/gateway/layer.ts
 * gives the parts, tests give stand-ins; hosted-volume.ts and volume-host.ts use them.
 */
import type { VolumePaths } from "#shared/domain/data-layout.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { RemoteBeginning, TendingLimits } from "#shared/ports/replica-home.ts";
import type { RemoteSources } from "#shared/ports/replica-residency.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { ImageReport } from "#shared/ports/volume-administration.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import type { HostedVolume } from "./hosted-volume.ts";
import type { JobRegister } from "./job-register.ts";
import type { PointSources } from "./point-sources.ts";
import type { PastHomes } from "./volume-past.ts";
import type { VolumeSession } from "./volume-session.ts";

/** What the host needs of a session. */
export type HostedSession = Pick<
  VolumeSession,
  | "sizeBytes"
  | "attachedClients"
  | "openExport"
  | "resize"
  | "status"
  | "close"
  | "extents"
  | "hotLog"
  | "baseImage"
  | "held"
  | "sync"
  | "mark"
  | "rollback"
>;

/** How a session is opened beside its record. */
export interface SessionTerms {
  /** The log is kept until the bucket holds it. False only with `--bucket none`. */
  readonly archived: boolean;
  readonly sources: RemoteSources;
}

export interface VolumeParts {
  /** Makes an image of the record's size, empty or, with `begin`, wholly remote; its directory exists and is empty. */
  createImage(record: VolumeRecord, paths: VolumePaths, begin?: RemoteBeginning): Promise<void>;
  openSession(record: VolumeRecord, paths: VolumePaths, terms: SessionTerms): Promise<HostedSession>;
  /** Works on the files of a volume whose session is closed. */
  image(
    operation: "check" | "adopt" | "discard",
    record: VolumeRecord,
    paths: VolumePaths,
  ): Promise<ImageReport>;
  /** Null with `--bucket none`, and offline: then `keepsLog` says whether the log is kept for a bucket. */
  readonly homes: PastHomes | null;
  readonly keepsLog: boolean;
  readonly tending: TendingLimits;
}

/** What all volumes of a host share. */
export interface HostedSetting {
  readonly store: FileStore;
  readonly clock: Clock;
  readonly parts: VolumeParts;
  readonly points: PointSources;
  readonly jobs: JobRegister;
  /** Cuts the connections of a volume and resolves with how many when they are gone. */
  readonly disconnect: (volume: HostedVolume) => Promise<number>;
}

export interface VolumeHostOptions {
  readonly dataDirectory: string;
  /** Make the data directory where it is missing. */
  readonly create: boolean;
  readonly store: FileStore;
  readonly catalog: VolumeCatalog;
  readonly clock: Clock;
  readonly random: Random;
  readonly parts: VolumeParts;
  /** Payload memory for reads at a point. */
  readonly memory: { acquire(bytes: number): Slab | null; release(slab: Slab): void };
}
