/*
 * Room in the file system of a data directory, as those see it who promise it away: the volume writers ask before an entry
 * is logged, so that nothing acknowledged ever fails for want of room in an image. Implemented by
 * services/storage/engine/space-reserve.ts, handed out by ReplicaHome. Bytes are whole blocks (domain/write-admission.ts).
 */
import type { VarveError } from "#shared/domain/errors.ts";

export interface SpaceAdmission {
  /** Null: an entry that may take up to `bytes` more in an image may be taken in. Else why not: Full, or Internal where the directory is gone. Promises nothing. */
  refuse(bytes: number): VarveError | null;
  /** Such an entry is in a batch now: its room is kept for it until settle() or withdraw(). */
  admit(bytes: number): void;
  /** Admitted bytes whose batch is in the image now. */
  settle(bytes: number): void;
  /** Admitted bytes whose batch will never reach the image. */
  withdraw(bytes: number): void;
  /** False: entries that only overwrite allocated blocks are refused like all others, because the reserve is gone. */
  readonly takesOverwrites: boolean;
  /**
   * An image found no room although admission let the entry in. True: room was made, the same work may be tried again. With
   * the reserve gone it waits for room, as long as `mayWait` says so; false: there is none.
   */
  makeRoom(mayWait: () => boolean): Promise<boolean>;
}
