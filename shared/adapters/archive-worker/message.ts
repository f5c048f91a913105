/*
 * What goes between the event loop and the archive thread: one request, one answer, matched by number. Used by thread.ts and
 * worker-program.ts. ArrayBuffers are transferred, SharedArrayBuffers are seen by both.
 */
import type { ErrorKind } from "#shared/domain/errors.ts";
import type { ForegroundLoad } from "#shared/memory/foreground-load.ts";
import type { SegmentRecords, SegmentTail } from "#shared/ports/archive-worker.ts";
import type { ThreadPriority } from "./priority.ts";

/** What a worker is started with. */
export interface ArchiveWorkerData {
  readonly priority: ThreadPriority;
  /** Of a ForegroundLoad that it gives way to; null: to nobody. */
  readonly foreground: ForegroundLoad["cells"] | null;
}

export type ArchiveTask =
  | { readonly kind: "seal"; readonly records: SegmentRecords; readonly level: number }
  | {
      readonly kind: "page";
      readonly volumeId: string;
      readonly key: string;
      readonly segments: readonly SegmentTail[];
    }
  | {
      readonly kind: "touched";
      readonly segments: readonly SegmentTail[];
      readonly pages: readonly Uint8Array[];
      readonly afterLsn: number;
    }
  | { readonly kind: "hash"; readonly memory: SharedArrayBuffer }
  | {
      readonly kind: "chunk";
      readonly memory: SharedArrayBuffer;
      readonly hash: string;
      readonly level: number;
    };

export interface ArchiveRequest {
  readonly number: number;
  readonly task: ArchiveTask;
  /** A segment with others before it: it gives no way to clients (give-way.ts). */
  readonly isBehind: boolean;
}

export interface ArchiveFailure {
  readonly tag: string;
  readonly errorKind: ErrorKind;
  readonly message: string;
  readonly hint: string;
}

export type ArchiveAnswer =
  | { readonly number: number; readonly result: unknown }
  | { readonly number: number; readonly failure: ArchiveFailure };
