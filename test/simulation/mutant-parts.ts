/*
 * The larger pieces of mutants.ts: an image that says "applied" too early, a disk that mends torn records, a recovery that
 * erases the last record or does not write again what it read. They know the record's bytes from shared/formats.
 */
import type { Batch } from "#shared/domain/batch.ts";
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { checksumOf } from "#shared/formats/checksum.ts";
import { isBadRecord, readRecordHeader, readRecordPayload } from "#shared/formats/log-record.ts";
import type { BlockFile, FileStore } from "#shared/ports/file-store.ts";
import type { ReplicaImage } from "#shared/ports/replica-image.ts";
import { type MutantPlace, overriding } from "./mutant.ts";

const blockBytes = 4096;

/** Says that batches are applied, and applies them a moment later. */
export function deferredImage(image: ReplicaImage, { scheduler }: MutantPlace): ReplicaImage {
  let turn = Promise.resolve();
  return overriding(image, {
    apply: async (batches) => {
      // Replay waits for what it applies and asks how far it came.
      if (!batches.every((batch) => batch instanceof BatchDraft)) {
        await image.apply(batches);
        return;
      }
      const copies = batches.map(copyOf);
      const earlier = turn;
      turn = new Promise((resolve) => {
        scheduler.after(5, () => {
          earlier
            .then(() => image.apply(copies))
            .then(
              () => resolve(),
              () => resolve(),
            );
        });
      });
    },
    checkpoint: async () => {
      await turn;
      return await image.checkpoint();
    },
    detach: async () => {
      await turn;
      await image.detach();
    },
    abandon: async () => {
      await turn;
      await image.abandon();
    },
  });
}

function copyOf(batch: Batch | BatchDraft): Batch | BatchDraft {
  if (!(batch instanceof BatchDraft)) return batch;
  const copy = Object.create(Object.getPrototypeOf(batch)) as BatchDraft;
  return Object.assign(copy, batch, { slab: { bytes: Buffer.from(batch.slab.bytes), address: 0 } });
}

/** Reads of the log give every record whose payload is torn new checksums. */
export function mendRecords(file: BlockFile): Partial<BlockFile> {
  return {
    read: async (slab, start, length, offset) => {
      await file.read(slab, start, length, offset);
      for (let at = start; at + blockBytes <= start + length; at += blockBytes) {
        const header = readRecordHeader(slab.bytes, at);
        if (isBadRecord(header) || at + header.recordBytes > start + length) continue;
        if (!isBadRecord(readRecordPayload(header, slab.bytes, at))) continue;
        const record = slab.bytes.subarray(at, at + header.recordBytes);
        const payloadEnd = header.payloadStart + header.payloadBytes;
        record.fill(0, payloadEnd);
        record.writeBigUInt64LE(checksumOf(record.subarray(header.payloadStart)), 64);
        record.writeBigUInt64LE(checksumOf(record.subarray(8, header.payloadStart)), 0);
      }
    },
  };
}

/** Durable writes of the bytes that stand there already are left out, and so are syncs of a file that was not written to. */
export function skipEqualWrites(file: BlockFile, store: FileStore): Partial<BlockFile> {
  let wrote = false;
  return {
    write: async (pieces, offset) => {
      wrote = true;
      await file.write(pieces, offset);
    },
    writeInline: (pieces, offset) => {
      wrote = true;
      file.writeInline(pieces, offset);
    },
    writeDurable: async (pieces, offset) => {
      const bytes = Buffer.concat(
        pieces.map(({ slab, start, length }) => slab.bytes.subarray(start, start + length)),
      );
      const there = store.allocateSlab(bytes.byteLength);
      await file.read(there, 0, bytes.byteLength, offset);
      if (!there.bytes.subarray(0, bytes.byteLength).equals(bytes)) await file.writeDurable(pieces, offset);
    },
    sync: async () => {
      if (wrote) await file.sync();
    },
  };
}

/** Erases the header of the record with the greatest LSN. */
export async function eraseLastRecord(store: FileStore, directory: string): Promise<void> {
  let last: { readonly path: string; readonly offset: number; readonly lsn: number } | null = null;
  for (const name of await store.list(directory)) {
    const path = `${directory}/${name}`;
    const bytes = await store.readWhole(path);
    if (bytes === null) continue;
    for (let offset = blockBytes; offset + blockBytes <= bytes.byteLength; offset += blockBytes) {
      const header = readRecordHeader(bytes, offset);
      if (!isBadRecord(header) && header.lastLsn > (last?.lsn ?? 0)) {
        last = { path, offset, lsn: header.lastLsn };
      }
    }
  }
  if (last === null) return;
  const file = await store.open(last.path, { access: "direct" });
  const slab = store.allocateSlab(blockBytes);
  slab.bytes.fill(0, 0, blockBytes);
  await file.writeDurable([{ slab, start: 0, length: blockBytes }], last.offset);
  await file.close();
}
