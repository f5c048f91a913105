/*
 * The note beside a replica's image that says who may read the image directly, and how far it is (docs/formats/read-grant.md). Written
 * by the storage node (services/storage/engine/read-grant.ts), read by a gateway on the same host before and after it reads the
 * image (services/gateway/engine/direct-reads.ts).
 */
import { type BadBytes, bad, isZero, readInteger, writeInteger } from "./binary-fields.ts";
import { checksumOf } from "./checksum.ts";

/** "VGRT" as bytes. */
const magic = 0x5452_4756;
const version = 1;
const tokenAt = 16;
const lsnAt = 32;
export const readGrantBytes = 40;
export const readTokenPattern = /^[0-9a-f]{32}$/;

export interface ReadGrantNote {
  /** 32 hex digits, another one for each grant; null: nobody may read. */
  readonly token: string | null;
  /** The image holds every entry up to this one. */
  readonly appliedLsn: number;
}

export type BadReadGrant = BadBytes<"readGrant">;

/** Into `bytes`, which has readGrantBytes. */
export function encodeReadGrant(bytes: Buffer, { token, appliedLsn }: ReadGrantNote): void {
  bytes.fill(0, 0, readGrantBytes);
  bytes.writeUInt32LE(magic, 8);
  bytes.writeUInt16LE(version, 12);
  if (token !== null) bytes.write(token, tokenAt, "hex");
  writeInteger(bytes, lsnAt, appliedLsn);
  bytes.writeBigUInt64LE(checksumOf(bytes.subarray(8, readGrantBytes)), 0);
}

/** Never throws. A note that was caught in the middle of being written is bad by its checksum. */
export function decodeReadGrant(bytes: Buffer): ReadGrantNote | BadReadGrant {
  if (bytes.length !== readGrantBytes) return bad("readGrant", `${bytes.length} bytes`);
  if (bytes.readUInt32LE(8) !== magic) return bad("readGrant", "no note of a grant");
  if (checksumOf(bytes.subarray(8)) !== bytes.readBigUInt64LE(0)) return bad("readGrant", "checksum");
  if (bytes.readUInt16LE(12) !== version || bytes.readUInt16LE(14) !== 0) return bad("readGrant", "version");
  const appliedLsn = readInteger(bytes, lsnAt);
  if (!Number.isSafeInteger(appliedLsn)) return bad("readGrant", "LSN");
  const token = isZero(bytes, tokenAt, lsnAt) ? null : bytes.toString("hex", tokenAt, lsnAt);
  return { token, appliedLsn };
}

export function isBadReadGrant(value: ReadGrantNote | BadReadGrant): value is BadReadGrant {
  return "fault" in value;
}
