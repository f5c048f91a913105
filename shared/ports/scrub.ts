/*
 * Scrub as its users see it: an image and its past go in, what differs comes out. One engine (services/archiver/engine/scrubber.ts) for
 * `varve up` and for the storage nodes of a cluster, which get it through services/archiver/scrub-layer.ts. docs/specs/retention.md.
 */
import type { BaseImage } from "./archive.ts";
import type { ScrubOptions, ScrubReport } from "./bucket-administration.ts";
import type { Clock } from "./clock.ts";
import type { VolumeHistory } from "./history.ts";
import type { Slab } from "./slab.ts";

/** An image that is in use, as the scrubber reads it. */
export interface ScrubSubject {
  readonly name: string;
  /** The file itself, never through an overlay. */
  readonly image: BaseImage;
  readonly history: Pick<VolumeHistory, "open" | "changes">;
  /** Takes the extent's bytes again, through `memory`; false where that is not possible now. */
  repair(extent: number, memory: Slab): Promise<boolean>;
}

export interface ScrubberParts {
  readonly clock: Clock;
  allocateSlab(bytes: number): Slab;
  onProgress?(doneBytes: number, totalBytes: number): void;
  /** True: end with what was compared so far. */
  isStopped?(): boolean;
  /** Only these extents, in this order; absent: all. */
  readonly extents?: readonly number[];
  /** It ends when so many are damaged; absent: none. */
  readonly damagedMax?: number;
}

/** One run. `busy` lists what the report counts as busy, at most limits.scrub.busyMax of them. */
export type ScrubRun = (
  parts: ScrubberParts,
  subject: ScrubSubject,
  options: ScrubOptions,
) => Promise<{ readonly report: ScrubReport; readonly busy: readonly number[] }>;
