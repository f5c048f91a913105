/*
 * A served volume as the keeper of the bucket sees it: its archive, its image and its past. The volume host gives them
 * (VolumeHost.kept); trimmer, exact bases and scrubber of services/archiver work with them.
 */
import type { BaseImage, VolumeArchive } from "./archive.ts";
import type { VolumeHistory } from "./history.ts";
import type { Slab } from "./slab.ts";

export interface KeptVolume {
  readonly volumeId: string;
  readonly name: string;
  readonly archive: VolumeArchive;
  /** The file itself, never through an overlay. */
  readonly image: BaseImage;
  readonly history: VolumeHistory;
  /**
   * Takes an extent's bytes from the bucket again, which are read into `memory` (an extent's size) first; false where entries touched
   * it that the bucket does not hold yet.
   */
  refill(extent: number, memory: Slab): Promise<boolean>;
}
