/*
 * Where the histories of a process are read: one for all volumes, so that caches and request limits are shared. Implemented by
 * adapters/history/histories.ts; the volume host makes one history per volume that it serves and finds those of parents
 * that are served elsewhere or gone from this machine. See docs/specs/history.md.
 */
import type { HistorySubject, VolumeHistory } from "./history.ts";

export interface HistoryHome {
  /** A volume that is served here, until the returned function is called: clones of it read its hot log, too. */
  serve(subject: HistorySubject): () => void;
  of(subject: HistorySubject): VolumeHistory;
  /** Of a volume served here, else by its manifest in the bucket. Rejects Invalid where neither knows it. */
  find(volumeId: string): Promise<VolumeHistory>;
  close(): Promise<void>;
}
