/*
 * Reads records of one file in order through a window of memory: small at first, large when reading on. Checks each by
 * itself (checksums, lengths); line, LSN and chain are the caller's. Used by recovery-scan.ts, log-reader.ts, inspect.ts.
 */
import { limits } from "#shared/domain/limits.ts";
import {
  type BadRecord,
  isBadRecord,
  type RecordHeader,
  readRecordHeader,
  readRecordPayload,
} from "#shared/formats/log-record.ts";
import type { BlockFile } from "#shared/ports/file-store.ts";
import type { LoggedBatch } from "#shared/ports/history.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { ScanMemory } from "./scan-memory.ts";

/** The largest record: a header block and a full payload. */
export const recordBytesMax = limits.batchHeaderBytesMax + limits.batchPayloadBytesMax;
const firstReadBytes = 64 * 1024;

export class RecordScanner {
  readonly #memory: ScanMemory;
  #slab: Slab;
  #file: BlockFile | null = null;
  /** The window holds file bytes [start, end); nothing at or past `limit` is read. */
  #start = 0;
  #end = 0;
  #limit = 0;
  #readBytes = firstReadBytes;

  constructor(memory: ScanMemory) {
    this.#memory = memory;
    this.#slab = memory.takeSmall();
  }

  /** Gives the memory back. No batch that was read is valid any more. */
  close(): void {
    this.#file = null;
    this.#memory.give(this.#slab);
  }

  /** Reads `file` below `limit` from now on. Reading on from the file before keeps the large step. */
  use(file: BlockFile, limit: number): void {
    this.#file = file;
    this.#start = 0;
    this.#end = 0;
    this.#limit = limit;
  }

  /** The header at `offset`, or what is wrong with it. */
  header(offset: number): Promise<RecordHeader | BadRecord> | RecordHeader | BadRecord {
    if (offset >= this.#start && offset + limits.blockBytes <= this.#end) return this.#headerHere(offset);
    return this.#fill(offset, limits.blockBytes).then(() => this.#headerHere(offset));
  }

  /** The batch whose header was read at `offset`. Its payload and record are valid until the next call. */
  batch(offset: number, header: RecordHeader): Promise<LoggedBatch | BadRecord> | LoggedBatch | BadRecord {
    if (offset + header.recordBytes <= this.#end) return this.#batchHere(offset, header);
    return this.#fill(offset, header.recordBytes).then(() => this.#batchHere(offset, header));
  }

  /** Header and payload at `offset`, for callers that need both. */
  async record(offset: number): Promise<{ header: RecordHeader; batch: LoggedBatch } | BadRecord> {
    const header = await this.header(offset);
    if (isBadRecord(header)) return header;
    const batch = await this.batch(offset, header);
    return isBadRecord(batch) ? batch : { header, batch };
  }

  /** The bytes of [offset, offset + length), for callers that copy them as they are. */
  async bytes(offset: number, length: number): Promise<{ slab: Slab; start: number }> {
    if (offset < this.#start || offset + length > this.#end) await this.#fill(offset, length);
    return { slab: this.#slab, start: offset - this.#start };
  }

  #headerHere(offset: number): RecordHeader | BadRecord {
    const at = offset - this.#start;
    return readRecordHeader(this.#slab.bytes.subarray(0, Math.min(this.#end, this.#limit) - this.#start), at);
  }

  #batchHere(offset: number, header: RecordHeader): LoggedBatch | BadRecord {
    const readable = Math.min(this.#end, this.#limit) - this.#start;
    const at = offset - this.#start;
    const batch = readRecordPayload(header, this.#slab.bytes.subarray(0, readable), at);
    if (isBadRecord(batch)) return batch;
    return { ...batch, record: this.#slab.bytes.subarray(at, at + header.recordBytes) };
  }

  /** Moves the window so that it starts at `offset` and holds at least `length` bytes, as far as the limit goes. */
  async #fill(offset: number, length: number): Promise<void> {
    const file = this.#file;
    if (file === null) throw new TypeError("a scanner is used before it has a file");
    const kept = offset >= this.#start && offset < this.#end ? this.#end - offset : 0;
    const wide = Math.max(length, kept + this.#readBytes);
    if (wide > this.#slab.bytes.byteLength) this.#widen();
    if (kept > 0) this.#slab.bytes.copyWithin(0, offset - this.#start, this.#end - this.#start);
    const room = this.#slab.bytes.byteLength - kept;
    const wanted = Math.max(length - kept, this.#readBytes);
    const step = Math.min(room, wanted, Math.max(0, this.#limit - offset - kept));
    this.#start = offset;
    this.#end = offset + kept;
    if (step > 0) await file.read(this.#slab, kept, step, offset + kept);
    this.#end += step;
    this.#readBytes = Math.min(this.#readBytes * 2, limits.batchPayloadBytesMax);
  }

  /** Goes on in large memory, with what the window holds. */
  #widen(): void {
    const small = this.#slab;
    const large = this.#memory.takeLarge();
    if (large.bytes.byteLength <= small.bytes.byteLength) {
      this.#memory.give(large);
      return;
    }
    small.bytes.copy(large.bytes, 0, 0, this.#end - this.#start);
    this.#slab = large;
    this.#memory.give(small);
  }
}
