/*
 * A message of a JetStream stream that holds a log (docs/formats/log-message.md): one or more records of log-record.md, one
 * behind the other, without their padding. The JetStream writer packs framed drafts, its readers get back the very records.
 * Reading trusts nothing, like log-record.ts, and never throws.
 */
import type { Batch } from "#shared/domain/batch.ts";
import type { BatchDraft } from "#shared/domain/batch-draft.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import { bad, roundUp } from "./binary-fields.ts";
import {
  type BadRecord,
  checkedBatch,
  isBadRecord,
  readRecordHeader,
  recordPayloadStart,
} from "./log-record.ts";

/** Of a record with header `headerBytes`, without padding. */
function packedBytes(headerBytes: number, payloadBytes: number): number {
  return limits.recordFixedBytes + headerBytes + payloadBytes;
}

/** Bytes that a draft's record takes in a message at most, before it is framed. */
export function messageBytesBound(draft: BatchDraft): number {
  return packedBytes(draft.headerBytesBound, draft.payloadBytes);
}

/** Copies the record of a draft that frameRecord() framed, without its padding; returns where it ends. */
export function packRecord(
  draft: BatchDraft<{ readonly bytes: Buffer; readonly address: number }>,
  into: Buffer,
  at: number,
): number {
  const { bytes } = draft.slab;
  const headEnd = limits.recordFixedBytes + bytes.readUInt32LE(24);
  const payloadAt = at + headEnd;
  const end = payloadAt + draft.payloadBytes;
  invariant(end <= into.length, "a packed record fits its message");
  bytes.copy(into, at, 0, headEnd);
  bytes.copy(into, payloadAt, recordPayloadStart, recordPayloadStart + draft.payloadBytes);
  return end;
}

/** A record and the batch it holds; both are valid until the next one is read. The payload stays where the message is. */
export class MessageRecord {
  readonly batch: Batch;
  readonly #whole: () => Buffer;

  constructor(batch: Batch, whole: () => Buffer) {
    this.batch = batch;
    this.#whole = whole;
  }

  /** As it stands in log files. Made when it is asked for: who applies a batch has no need of it. */
  get record(): Buffer {
    return this.#whole();
  }
}

/** Reads the records of messages, one after the other. Owns the memory that they are padded in. */
export class MessageReader {
  #padded = Buffer.alloc(recordPayloadStart);

  /** Stops after the first that is not whole: what follows can't be told apart from garbage. */
  *read(message: Uint8Array): Generator<MessageRecord | BadRecord, void, undefined> {
    const bytes = Buffer.from(message.buffer, message.byteOffset, message.byteLength);
    if (bytes.length === 0) yield bad("truncated", "an empty message");
    let at = 0;
    while (at < bytes.length) {
      const headerBytes = bytes.length - at < 32 ? -1 : bytes.readUInt32LE(at + 24);
      const payloadBytes = headerBytes === -1 ? -1 : bytes.readUInt32LE(at + 28);
      const fault = this.#faultOf(headerBytes, payloadBytes, bytes.length - at);
      if (fault !== null) {
        yield fault;
        return;
      }
      const payloadAt = at + limits.recordFixedBytes + headerBytes;
      const found = this.#record(
        bytes.subarray(at, payloadAt),
        bytes.subarray(payloadAt, payloadAt + payloadBytes),
      );
      yield found;
      if ("fault" in found) return;
      at = payloadAt + payloadBytes;
    }
  }

  #faultOf(headerBytes: number, payloadBytes: number, available: number): BadRecord | null {
    if (headerBytes === -1) return bad("truncated", `${available} bytes where a record starts`);
    if (
      headerBytes > recordPayloadStart - limits.recordFixedBytes ||
      payloadBytes > limits.batchPayloadBytesMax
    ) {
      return bad("lengths", `header ${headerBytes}, payload ${payloadBytes} bytes`);
    }
    const needed = packedBytes(headerBytes, payloadBytes);
    return needed > available ? bad("truncated", `${available} of ${needed} record bytes`) : null;
  }

  /** Whole blocks of payload are checked where they are; only what log files pad is put together. */
  #record(head: Buffer, payload: Buffer): MessageRecord | BadRecord {
    const header = readRecordHeader(this.#withHead(head, recordPayloadStart));
    if (isBadRecord(header)) return header;
    const isWhole = payload.length % limits.blockBytes === 0;
    const blocks = isWhole ? payload : this.#withPayload(head, payload).subarray(recordPayloadStart);
    const batch = checkedBatch(header, blocks);
    if (isBadRecord(batch)) return batch;
    return new MessageRecord({ ...batch, payload }, () => this.#withPayload(head, payload));
  }

  #withPayload(head: Buffer, payload: Buffer): Buffer {
    const payloadEnd = recordPayloadStart + payload.length;
    const record = this.#withHead(head, roundUp(payloadEnd, limits.blockBytes));
    payload.copy(record, recordPayloadStart);
    record.fill(0, payloadEnd);
    return record;
  }

  #withHead(head: Buffer, recordBytes: number): Buffer {
    if (this.#padded.length < recordBytes) this.#padded = Buffer.allocUnsafeSlow(recordBytes);
    head.copy(this.#padded);
    this.#padded.fill(0, head.length, recordPayloadStart);
    return this.#padded.subarray(0, recordBytes);
  }
}
