/*
 * Messages between gateways and storage nodes (docs/formats/replica-message.md): a packed header and raw payload behind it. The
 * gateway's remote replica and the storage node's replica service encode and decode them; a message bus carries them. Reading
 * trusts nothing: garbage gives a typed result and never throws.
 */
import type { ErrorKind } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import {
  type ReplicaCondition,
  type ReplicaReport,
  replicaConditions,
} from "#shared/domain/replica-report.ts";
import { type BadBytes, bad } from "./binary-fields.ts";
import { checksumOf } from "./checksum.ts";
import { PackedReader, type PackedValue, packInto } from "./packed-header.ts";

/** "VMSG" as bytes. */
export const messageMagic = 0x4753_4d56;
export const messageVersion = 1;
const headBytes = 16;
/** Every field at its longest: four texts of 255 and eight numbers. */
const headerBytesMax = 2048;
const textMax = 255;

/** A gateway asks for bytes as of an LSN or later. */
export interface ReadRequest {
  readonly type: "read";
  readonly offset: number;
  readonly length: number;
  readonly leastLsn: number;
  /** How long a replica that is behind may wait for it. */
  readonly waitMs: number;
}

/** A gateway asks where a replica stands; a state message answers. */
export interface StateRequest {
  readonly type: "ask";
}

/** The bytes, and where the replica stood when they were read. */
export interface ReadAnswer {
  readonly type: "bytes";
  readonly appliedLsn: number;
  readonly epoch: number;
}

/** Why not. Behind: kind Retry, tag ReplicaBehind. */
export interface ReplicaRefusal {
  readonly type: "refused";
  readonly kind: ErrorKind;
  readonly tag: string;
  readonly message: string;
  readonly epoch: number;
}

export interface StateMessage {
  readonly type: "state";
  readonly report: ReplicaReport;
}

export type ReplicaMessage = ReadRequest | StateRequest | ReadAnswer | ReplicaRefusal | StateMessage;

/** `payload`: a view of the message's memory. */
export type DecodedMessage = { readonly message: ReplicaMessage; readonly payload: Buffer };

/** notAMessage: no magic. truncated: too short. checksum: the bytes changed. version: newer. fields: not what any Varve sends. */
export type MessageFault = "notAMessage" | "truncated" | "checksum" | "version" | "fields";
export type BadMessage = BadBytes<MessageFault>;

const errorKinds: readonly string[] = ["Retry", "Fenced", "Invalid", "Corrupt", "Full", "Internal"];

export function encodeMessage(message: ReplicaMessage): Buffer {
  return encodeWith(message, 0).bytes;
}

/** A message with room for so many payload bytes, to be filled from `payloadAt` on; then sealMessage(). */
export function encodeWith(
  message: ReplicaMessage,
  payloadBytes: number,
): { readonly bytes: Buffer; readonly payloadAt: number } {
  const header = Buffer.allocUnsafe(headerBytesMax);
  const headerBytes = packInto(header, 0, valuesOf(message));
  const payloadAt = headBytes + headerBytes;
  const bytes = Buffer.allocUnsafe(payloadAt + payloadBytes);
  header.copy(bytes, headBytes, 0, headerBytes);
  bytes.writeUInt32LE(messageMagic, 8);
  bytes.writeUInt16LE(messageVersion, 12);
  bytes.writeUInt16LE(headerBytes, 14);
  if (payloadBytes === 0) sealMessage(bytes);
  return { bytes, payloadAt };
}

/** After its payload was filled in. */
export function sealMessage(bytes: Buffer): void {
  bytes.writeBigUInt64LE(checksumOf(bytes.subarray(8)), 0);
}

export function decodeMessage(data: Uint8Array): DecodedMessage | BadMessage {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  if (bytes.length < headBytes) return bad("truncated", `${bytes.length} of at least ${headBytes} bytes`);
  if (bytes.readUInt32LE(8) !== messageMagic) return bad("notAMessage", "this is no message of Varve");
  if (checksumOf(bytes.subarray(8)) !== bytes.readBigUInt64LE(0)) {
    return bad("checksum", "the message's checksum does not match its bytes");
  }
  const version = bytes.readUInt16LE(12);
  if (version !== messageVersion) return bad("version", `message version ${version}`);
  const payloadAt = headBytes + bytes.readUInt16LE(14);
  if (payloadAt > bytes.length) return bad("truncated", "the header is cut off");
  const reader = new PackedReader(bytes, headBytes, payloadAt);
  const message = messageOf(reader);
  if (message === null || !reader.complete) return bad("fields", "the message's header is not valid");
  if (message.type !== "bytes" && payloadAt !== bytes.length) return bad("fields", "bytes behind the header");
  return { message, payload: bytes.subarray(payloadAt) };
}

export function isBadMessage(value: DecodedMessage | BadMessage): value is BadMessage {
  return "fault" in value;
}

function valuesOf(message: ReplicaMessage): PackedValue[] {
  if (message.type === "read") {
    invariant(message.length >= 1 && message.length <= limits.replicaReadBytesMax, "a read fits a message");
    return ["read", message.offset, message.length, message.leastLsn, message.waitMs];
  }
  if (message.type === "bytes") return ["bytes", message.appliedLsn, message.epoch];
  if (message.type === "ask") return ["ask"];
  if (message.type === "state") return ["state", ...reportValues(message.report)];
  return ["refused", message.kind, message.tag, plainText(message.message), message.epoch];
}

function reportValues(report: ReplicaReport): PackedValue[] {
  return [
    report.node,
    plainText(report.host),
    report.condition,
    plainText(report.reason),
    report.appliedLsn,
    report.checkpointLsn,
    report.epoch,
    report.sizeBytes,
    report.allocatedBytes,
    report.roomBytes,
  ];
}

function messageOf(reader: PackedReader): ReplicaMessage | null {
  const count = reader.array();
  const type = reader.text();
  if (type === "read" && count === 5) {
    const [offset, length, leastLsn, waitMs] = [
      reader.number(),
      reader.number(),
      reader.number(),
      reader.number(),
    ];
    const fits = length >= 1 && length <= limits.replicaReadBytesMax;
    return fits ? { type, offset, length, leastLsn, waitMs } : null;
  }
  if (type === "ask" && count === 1) return { type };
  if (type === "bytes" && count === 3) return { type, appliedLsn: reader.number(), epoch: reader.number() };
  if (type === "refused" && count === 5) {
    const kind = reader.text();
    if (!errorKinds.includes(kind)) return null;
    const refusal = { tag: reader.text(), message: reader.text(), epoch: reader.number() };
    return { type, kind: kind as ErrorKind, ...refusal };
  }
  return type === "state" && count === 11 ? stateOf(reader) : null;
}

function stateOf(reader: PackedReader): StateMessage | null {
  const node = reader.text();
  const host = reader.text();
  const condition = reader.text();
  if (!(replicaConditions as readonly string[]).includes(condition)) return null;
  return {
    type: "state",
    report: {
      node,
      host,
      condition: condition as ReplicaCondition,
      reason: reader.text(),
      appliedLsn: reader.number(),
      checkpointLsn: reader.number(),
      epoch: reader.number(),
      sizeBytes: reader.number(),
      allocatedBytes: reader.number(),
      roomBytes: reader.number(),
    },
  };
}

/** What a header can hold: ASCII, not too long. */
function plainText(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, "?").slice(0, textMax);
}
