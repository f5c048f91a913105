// Batches as a log holds them, made without a log: entries in, framed and chained records out, exactly as the log adapters
// frame them. For tests of what reads records: segments, point sources, the bucket's second reader.
import type { Batch } from "#shared/domain/batch.ts";
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { entryKind } from "#shared/domain/entry.ts";
import { limits } from "#shared/domain/limits.ts";
import { frameRecord, isBadRecord, readRecord } from "#shared/formats/log-record.ts";

/** An entry to be, with the bytes of a write beside it. */
export type MadeEntry =
  | { readonly kind: "write"; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: "zero" | "zeroAllocated" | "trim"; readonly offset: number; readonly length: number }
  | { readonly kind: "epoch"; readonly writer: string }
  | { readonly kind: "mark"; readonly name: string }
  | { readonly kind: "resize"; readonly sizeBytes: number }
  | { readonly kind: "rebase"; readonly lsn: number };

export type MadeBatch = Batch & { readonly record: Buffer };

export class MadeLog {
  readonly line: string;
  epoch = 1;
  lastLsn: number;
  lastChecksum = 0n;

  constructor(line: string, lastLsn = 0) {
    this.line = line;
    this.lastLsn = lastLsn;
  }

  /** The next batch. Its record has its own memory. */
  batch(entries: readonly MadeEntry[], wallTimeMs: number): MadeBatch {
    const payloadBytes = entries.reduce(
      (sum, entry) => sum + (entry.kind === "write" ? entry.bytes.length : 0),
      0,
    );
    const blocks = Math.ceil(payloadBytes / limits.blockBytes);
    const bytes = Buffer.alloc(limits.batchHeaderBytesMax + Math.max(1, blocks) * limits.blockBytes);
    const draft = new BatchDraft({ bytes, address: 0 });
    for (const entry of entries) addEntry(draft, entry);
    draft.firstLsn = this.lastLsn + 1;
    const { line, epoch } = this;
    frameRecord(draft, {
      line,
      epoch,
      wallTimeMs,
      durableLsn: this.lastLsn,
      previousChecksum: this.lastChecksum,
    });
    this.lastLsn = draft.lastLsn;
    this.lastChecksum = draft.checksum;
    const record = bytes.subarray(0, draft.recordBytes);
    const batch = readRecord(record);
    if (isBadRecord(batch)) throw new Error(batch.detail);
    return { ...batch, record };
  }
}

function addEntry(draft: BatchDraft, entry: MadeEntry): void {
  switch (entry.kind) {
    case "write":
      draft.slab.bytes.set(entry.bytes, draft.addWrite(entry.offset, entry.bytes.length));
      break;
    case "zero":
    case "zeroAllocated":
    case "trim":
      draft.addRange(entryKind[entry.kind], entry.offset, entry.length);
      break;
    case "epoch":
      draft.addValue(entryKind.epoch, entry.writer);
      break;
    case "mark":
      draft.addValue(entryKind.mark, entry.name);
      break;
    case "resize":
      draft.addValue(entryKind.resize, entry.sizeBytes);
      break;
    case "rebase":
      draft.addValue(entryKind.rebase, entry.lsn);
      break;
  }
}
