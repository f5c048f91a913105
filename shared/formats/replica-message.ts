/*
 * Messages between gateways, archivers, storage nodes and the api (docs/formats/replica-message.md): a packed header and raw payload
 * behind it. The gateway's remote replica, the storage node's replica service, its fills and the api's comparison encode and decode them; a
 * message bus carries them. Reading trusts nothing: garbage gives a typed result and never throws.
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

/** An archiver asks for bytes of an extent, for a base: only where they are in the node's own file. */
export interface ExtentRequest extends Omit<ReadRequest, "type"> {
  readonly type: "extent";
}

/** An archiver asks which of so many extents from `first` on may hold anything but zeroes. */
export interface SurveyRequest {
  readonly type: "survey";
  readonly first: number;
  readonly count: number;
  readonly leastLsn: number;
  readonly waitMs: number;
}

/** The bytes of an extent, or a bit for each extent that was asked of (least significant first; 1: may hold bytes). */
export interface BaseAnswer<T extends "extentBytes" | "surveyed"> {
  readonly type: T;
  /** Entries up to here had been applied before anything was read. */
  readonly appliedLsn: number;
  /** The greatest LSN whose apply had begun when all was read. */
  readonly begunLsn: number;
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

/** Who fills a replica asks another one where it stands in the log; a place answers. */
export interface PlaceRequest {
  readonly type: "where";
}

/** Where in the log a replica stands: what a copy of it begins with. */
export interface PlaceAnswer {
  readonly type: "place";
  readonly line: string;
  readonly epoch: number;
  readonly appliedLsn: number;
  /** Of the batch at appliedLsn. */
  readonly checksum: bigint;
  readonly sequence: number;
  readonly sizeBytes: number;
}

/** Who fills a replica asks for what is in a range, as of an LSN or later. */
export interface CopyRequest {
  readonly type: "copy";
  readonly offset: number;
  readonly length: number;
  readonly leastLsn: number;
}

/** A hole of skippedBytes from the offset on, then the payload's bytes; without payload the whole range is a hole. */
export interface CopyAnswer {
  readonly type: "piece";
  readonly skippedBytes: number;
  readonly appliedLsn: number;
  /** Behind the read: entries up to it may be among the bytes. */
  readonly begunLsn: number;
}

/** A replica applies up to `lsn`, or stays where it is when that is further, for so long. 0 ms: it goes on. */
export interface HoldRequest {
  readonly type: "hold";
  readonly lsn: number;
  readonly holdMs: number;
}

/** Where it stands now; it stays there. */
export interface HeldAnswer {
  readonly type: "held";
  readonly appliedLsn: number;
}

/** Checksums of extents, the first at `offset`. */
export interface HashRequest {
  readonly type: "hash";
  readonly offset: number;
  readonly extents: number;
}

/** Eight bytes of payload for each extent: xxh64 of its bytes. */
export interface HashAnswer {
  readonly type: "hashes";
  readonly appliedLsn: number;
}

/** Fills the replica again from the others; a state message answers. */
export interface RepairRequest {
  readonly type: "repair";
}

export type ReplicaMessage =
  | ReadRequest
  | StateRequest
  | ReadAnswer
  | ReplicaRefusal
  | StateMessage
  | ExtentRequest
  | SurveyRequest
  | BaseAnswer<"extentBytes">
  | BaseAnswer<"surveyed">
  | PlaceRequest
  | PlaceAnswer
  | CopyRequest
  | CopyAnswer
  | HoldRequest
  | HeldAnswer
  | HashRequest
  | HashAnswer
  | RepairRequest;

/** Extents of one survey: 64 KiB of bits, 2 TiB of a volume. */
export const surveyExtentsMax = 512 * 1024;

const withPayload: readonly ReplicaMessage["type"][] = [
  "bytes",
  "extentBytes",
  "surveyed",
  "piece",
  "hashes",
];

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
  if (!withPayload.includes(message.type) && payloadAt !== bytes.length)
    return bad("fields", "bytes behind the header");
  return { message, payload: bytes.subarray(payloadAt) };
}

export function isBadMessage(value: DecodedMessage | BadMessage): value is BadMessage {
  return "fault" in value;
}

function valuesOf(message: ReplicaMessage): PackedValue[] {
  const { type } = message;
  switch (type) {
    case "survey":
      invariant(message.count >= 1 && message.count <= surveyExtentsMax, "a survey fits a message");
      return [type, message.first, message.count, message.leastLsn, message.waitMs];
    case "read":
    case "extent":
      invariant(message.length >= 1 && message.length <= limits.replicaReadBytesMax, "a read fits a message");
      return [type, message.offset, message.length, message.leastLsn, message.waitMs];
    case "extentBytes":
    case "surveyed":
      return [type, message.appliedLsn, message.begunLsn];
    case "bytes":
      return [type, message.appliedLsn, message.epoch];
    case "state":
      return [type, ...reportValues(message.report)];
    case "refused":
      return [type, message.kind, message.tag, plainText(message.message), message.epoch];
    case "place": {
      const { line, epoch, appliedLsn, checksum, sequence, sizeBytes } = message;
      return [type, line, epoch, appliedLsn, checksum.toString(16).padStart(16, "0"), sequence, sizeBytes];
    }
    case "copy":
      return [type, message.offset, message.length, message.leastLsn];
    case "piece":
      return [type, message.skippedBytes, message.appliedLsn, message.begunLsn];
    case "hold":
      return [type, message.lsn, message.holdMs];
    case "hash":
      return [type, message.offset, message.extents];
    case "held":
    case "hashes":
      return [type, message.appliedLsn];
    case "ask":
    case "where":
    case "repair":
      break;
  }
  return [type];
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

/** Elements of each header, its type among them. */
const elements: Readonly<Record<ReplicaMessage["type"], number>> = {
  read: 5,
  ask: 1,
  bytes: 3,
  refused: 5,
  state: 11,
  where: 1,
  place: 7,
  copy: 4,
  piece: 4,
  hold: 3,
  held: 2,
  hash: 3,
  hashes: 2,
  repair: 1,
  extent: 5,
  survey: 5,
  extentBytes: 3,
  surveyed: 3,
};

function messageOf(reader: PackedReader): ReplicaMessage | null {
  const count = reader.array();
  const text = reader.text();
  if (!Object.hasOwn(elements, text)) return null;
  const type = text as ReplicaMessage["type"];
  if (elements[type] !== count) return null;
  if (type === "state") return stateOf(reader);
  if (type === "place") return placeOf(reader);
  if (type === "refused") {
    const kind = reader.text();
    if (!errorKinds.includes(kind)) return null;
    const refusal = { tag: reader.text(), message: reader.text(), epoch: reader.number() };
    return { type, kind: kind as ErrorKind, ...refusal };
  }
  const [a = 0, b = 0, c = 0, d = 0] = Array.from({ length: count - 1 }, () => reader.number());
  switch (type) {
    case "extentBytes":
    case "surveyed":
      return { type, appliedLsn: a, begunLsn: b };
    case "survey":
      if (b < 1 || b > surveyExtentsMax) return null;
      return { type, first: a, count: b, leastLsn: c, waitMs: d };
    case "read":
    case "extent":
      if (b < 1 || b > limits.replicaReadBytesMax) return null;
      return { type, offset: a, length: b, leastLsn: c, waitMs: d };
    case "bytes":
      return { type, appliedLsn: a, epoch: b };
    case "copy":
      return b < 1 ? null : { type, offset: a, length: b, leastLsn: c };
    case "piece":
      return { type, skippedBytes: a, appliedLsn: b, begunLsn: c };
    case "hold":
      return b > limits.replicaHoldMsMax ? null : { type, lsn: a, holdMs: b };
    case "hash":
      return b < 1 || b > limits.replicaHashExtentsMax ? null : { type, offset: a, extents: b };
    case "held":
    case "hashes":
      return { type, appliedLsn: a };
    case "ask":
    case "where":
    case "repair":
      break;
  }
  return { type };
}

function placeOf(reader: PackedReader): PlaceAnswer | null {
  const [line, epoch, appliedLsn, sum] = [reader.text(), reader.number(), reader.number(), reader.text()];
  if (!/^[0-9a-f]{16}$/.test(sum)) return null;
  const checksum = BigInt(`0x${sum}`);
  const [sequence, sizeBytes] = [reader.number(), reader.number()];
  return { type: "place", line, epoch, appliedLsn, checksum, sequence, sizeBytes };
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
