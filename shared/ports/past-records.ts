/*
 * What the machines of a cluster share of each volume's past: its history record (snapshots, window, pins, policy: what one machine
 * keeps in history.json), and how far its archiver is. The api and the archiver change the first, the archiver writes the second, the
 * gateway that serves the volume releases log by it. Rules: docs/specs/cluster.md#an-archiver. Adapter: adapters/past-records/key-table.ts.
 */
import type { ArchiveRecord } from "#shared/domain/cluster.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import type { HistoryRecord } from "#shared/domain/history-record.ts";

export interface PastRecords {
  /** Resolves when what is stored is known. */
  ready(): Promise<void>;
  /** As last seen; null: nothing keeps the volume's past. */
  historyOf(volumeId: string): HistoryRecord | null;
  /** As last seen; null: no archiver has begun. */
  archiveOf(volumeId: string): ArchiveRecord | null;
  /** Tells of every change from now on, own ones included; until the returned function is called. */
  onChange(listener: (volumeId: string) => void): () => void;
  /** A record that can't be read; it counts as not there. */
  onError(listener: (error: VarveError) => void): void;
  /**
   * Replaces the history record by what `edit` makes of the present one (null: there is none, or it goes); made again where somebody
   * else changed it meanwhile. Resolves when it is durable. Rejects as `edit` throws, Full where the record is too large, Retry
   * while the table is away.
   */
  changeHistory(
    volumeId: string,
    edit: (present: HistoryRecord | null) => HistoryRecord | null,
  ): Promise<HistoryRecord | null>;
  /**
   * Stores what an archiver says. Rejects Fenced where a later archiver epoch has said something, or the same one under another
   * archiver's name: then nothing was changed, and never will be under this epoch.
   */
  putArchive(volumeId: string, record: ArchiveRecord): Promise<void>;
  /** The volume is gone. */
  forget(volumeId: string): Promise<void>;
  close(): void;
}
