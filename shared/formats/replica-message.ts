/*
 * Messages between gateways, archivers, storage nodes and the api (docs/formats/replica-message.md): a packed header and raw payload
 * behind it. The gateway's remote replica, the storage node's replica service, its fills and the api's comparison encode and decode them; a
 * message bus carries them. Reading trusts nothing: garbage gives a typed result and never throws.
 */
import type { ErrorKind } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import {
  type FillOrigin,
  fillOrigins,
  type ReplicaCondition,
  type ReplicaReport,
  replicaConditions,
} from "#shared/domain/replica-report.ts";
import { type BadBytes, bad } from "./binary-fields.ts";
import { checksumOf } from "./checksum.ts";
import { PackedReader, type PackedValue, packInto } from "./packed-header.ts";
import { readTokenPattern } from "./read-grant.ts";
import {
  holderMessageOf,
  type PlaceAnswer,
  type RepairRequest,
  type ReplicaMessage,
  type ScrubMessage,
  type StateMessage,
} from "./replica-message-kinds.ts";
import { isScrubMessage, isScrubType, scrubElements, scrubMessageOf, scrubValues } from "./scrub-messages.ts";

export type * from "./replica-message-kinds.ts";

/** "VMSG" as bytes. */
export const messageMagic = 0x4753_4d56;
export const messageVersion = 1;
const headBytes = 16;
/** Every field at its longest: four texts of 255 and eight numbers. */
const headerBytesMax = 2048;
const textMax = 255;
/** Used by one encoding after the other. */
const scratch = Buffer.alloc(headerBytesMax);

/** Extents of one survey: 64 KiB of bits, 2 TiB of a volume. */
export const surveyExtentsMax = 512 * 1024;

const withPayload: readonly ReplicaMessage["type"][] = [
  "bytes",
  "peek",
  "peeked",
  "extentBytes",
  "surveyed",
  "piece",
  "collected",
  "scrubbed",
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

/** A message with room for so many payload bytes, in memory of any content, to be filled from `payloadAt` on; then sealMessage(). */
export function encodeWith(
  message: ReplicaMessage,
  payloadBytes: number,
  allocate: (bytes: number) => Buffer = (bytes) => Buffer.allocUnsafe(bytes),
): { readonly bytes: Buffer; readonly payloadAt: number } {
  const values = isScrubMessage(message) ? scrubValues(message) : valuesOf(message);
  const headerBytes = packInto(scratch, 0, values);
  const payloadAt = headBytes + headerBytes;
  const bytes = allocate(payloadAt + payloadBytes);
  scratch.copy(bytes, headBytes, 0, headerBytes);
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

function valuesOf(message: Exclude<ReplicaMessage, ScrubMessage>): PackedValue[] {
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
      return [type, message.shownLsn, message.epoch];
    case "peek":
      return [type, message.leastLsn];
    case "peeked":
      return [type, message.shownLsn, message.epoch, message.found];
    case "state":
      return [type, ...reportValues(message.report)];
    case "refused":
      return [type, message.kind, message.tag, plainText(message.message), message.epoch];
    case "granted":
      invariant(isHeaderText(message.imagePath), "a granted image's path fits a header");
      return [type, message.imagePath, message.token, message.epoch];
    case "place":
      return placeValues(message);
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
    case "resize":
    case "resized":
      return [type, message.sizeBytes];
    case "mark":
      return [type, message.name];
    case "marked":
    case "reach":
    case "reached":
      return [type, message.lsn];
    case "yield":
      return [type, Number(message.isForced)];
    case "yielded":
      return [type, message.disconnected];
    case "collect":
      return [type, message.run, Number(message.dryRun), Number(message.acceptClock)];
    case "collected":
      return [type, Number(message.isDone)];
    case "repair":
      return message.from === null ? [type] : [type, message.from];
    case "evict":
      return [type, message.run, message.coldAfterMs];
    case "evicted":
      return [type, message.extents, Number(message.isDone)];
    case "ask":
    case "grant":
    case "where":
    case "fill":
      break;
  }
  return [type];
}

function placeValues({ type, checksum, ...place }: PlaceAnswer): PackedValue[] {
  const { line, epoch, appliedLsn, sequence, sizeBytes } = place;
  return [type, line, epoch, appliedLsn, checksum.toString(16).padStart(16, "0"), sequence, sizeBytes];
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
    ...(report.remoteExtents === undefined ? [] : [report.remoteExtents]),
  ];
}

/** Elements of each header, its type among them. */
const elements: Readonly<Record<ReplicaMessage["type"], number>> = {
  read: 5,
  peek: 2,
  peeked: 4,
  ask: 1,
  grant: 1,
  granted: 4,
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
  resize: 2,
  resized: 2,
  mark: 2,
  marked: 2,
  reach: 2,
  reached: 2,
  yield: 2,
  yielded: 2,
  collect: 4,
  collected: 2,
  extent: 5,
  survey: 5,
  extentBytes: 3,
  surveyed: 3,
  fill: 1,
  evict: 3,
  evicted: 3,
  ...scrubElements,
};

function messageOf(reader: PackedReader): ReplicaMessage | null {
  const count = reader.array();
  const text = reader.text();
  if (!Object.hasOwn(elements, text)) return null;
  const type = text as ReplicaMessage["type"];
  if (type === "repair") return repairOf(reader, count);
  if (type === "state") return stateOf(reader, count);
  if (elements[type] !== count) return null;
  if (isScrubType(type)) return scrubMessageOf(type, reader);
  if (type === "place") return placeOf(reader);
  if (type === "mark" || type === "evict" || type === "collect") return namedOf(type, reader);
  if (type === "granted") {
    const answer = { imagePath: reader.text(), token: reader.text(), epoch: reader.number() };
    return readTokenPattern.test(answer.token) ? { type, ...answer } : null;
  }
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
      return { type, shownLsn: a, epoch: b };
    case "peek":
      return { type, leastLsn: a };
    case "peeked":
      return c >= 2 ** limits.replicaPeek.rangesMax ? null : { type, shownLsn: a, epoch: b, found: c };
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
    case "collected":
      return { type, isDone: a !== 0 };
    case "evicted":
      return { type, extents: a, isDone: b !== 0 };
    case "ask":
    case "grant":
    case "where":
    case "fill":
      return { type };
    case "marked":
    case "reach":
    case "reached":
    case "resize":
    case "resized":
    case "yield":
    case "yielded":
      break;
  }
  return holderMessageOf(type, a);
}

function namedOf(type: "mark" | "evict" | "collect", reader: PackedReader): ReplicaMessage {
  const name = reader.text();
  if (type === "mark") return { type, name };
  if (type === "evict") return { type, run: name, coldAfterMs: reader.number() };
  const [dryRun, acceptClock] = [reader.number(), reader.number()];
  return { type, run: name, dryRun: dryRun !== 0, acceptClock: acceptClock !== 0 };
}

function repairOf(reader: PackedReader, count: number): RepairRequest | null {
  if (count === elements.repair) return { type: "repair", from: null };
  const from = reader.text();
  const isKnown = count === elements.repair + 1 && (fillOrigins as readonly string[]).includes(from);
  return isKnown ? { type: "repair", from: from as FillOrigin } : null;
}

function placeOf(reader: PackedReader): PlaceAnswer | null {
  const [line, epoch, appliedLsn, sum] = [reader.text(), reader.number(), reader.number(), reader.text()];
  if (!/^[0-9a-f]{16}$/.test(sum)) return null;
  const checksum = BigInt(`0x${sum}`);
  const [sequence, sizeBytes] = [reader.number(), reader.number()];
  return { type: "place", line, epoch, appliedLsn, checksum, sequence, sizeBytes };
}

function stateOf(reader: PackedReader, count: number): StateMessage | null {
  if (count !== elements.state && count !== elements.state + 1) return null;
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
      ...(count > elements.state ? { remoteExtents: reader.number() } : {}),
    },
  };
}

/** Whether a header can hold it as it is. */
export function isHeaderText(text: string): boolean {
  return text === plainText(text);
}

/** What a header can hold: ASCII, not too long. */
function plainText(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, "?").slice(0, textMax);
}
