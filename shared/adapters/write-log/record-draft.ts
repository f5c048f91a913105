/*
 * The draft type of this adapter: a BatchDraft whose slab is one that files can write from (ports/slab.ts). The port says
 * BatchDraft, because the domain knows no files; every slab in a running Varve comes from a FileStore.
 */
import type { BatchDraft } from "#shared/domain/batch-draft.ts";
import { recordBytesOf, recordPayloadStart } from "#shared/formats/log-record.ts";
import type { Slab } from "#shared/ports/slab.ts";

export type RecordDraft = BatchDraft<Slab>;

/** Bytes that the draft's record will take in a segment. */
export function recordBytesOfDraft(draft: BatchDraft): number {
  return recordBytesOf(recordPayloadStart, draft.payloadBytes);
}
