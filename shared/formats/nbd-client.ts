/*
 * The client's side of the NBD wire, as far as a gateway needs it that relays a session to another one (docs/formats/nbd.md): fixed
 * newstyle, GO, simple replies. Called by services/gateway/engine/relay-link.ts. Numbers in nbd-numbers.ts.
 */
import { nbdHandshakeFlag, nbdInfo, nbdMagic, nbdOption, nbdOptionReply } from "./nbd-numbers.ts";

export const greetingBytes = 18;
export const optionReplyHeadBytes = 20;
export const replyHeadBytes = 16;
const requestHeadBytes = 28;
/** Information and error texts of an option's reply: far above what any server says. */
export const optionReplyBytesMax = 64 * 1024;

export function isGreeting(bytes: Buffer): boolean {
  return (
    bytes.readUInt32BE(0) === nbdMagic.helloHigh &&
    bytes.readUInt32BE(4) === nbdMagic.helloLow &&
    bytes.readUInt32BE(8) === nbdMagic.optionHigh &&
    bytes.readUInt32BE(12) === nbdMagic.optionLow &&
    (bytes.readUInt16BE(16) & nbdHandshakeFlag.fixedNewstyle) !== 0
  );
}

/** The client's flags, and GO for the export. */
export function encodeGo(exportName: string): Buffer {
  const name = Buffer.from(exportName);
  const bytes = Buffer.alloc(4 + 16 + 4 + name.length + 2);
  bytes.writeUInt32BE(nbdHandshakeFlag.fixedNewstyle | nbdHandshakeFlag.noZeroes, 0);
  bytes.writeUInt32BE(nbdMagic.optionHigh, 4);
  bytes.writeUInt32BE(nbdMagic.optionLow, 8);
  bytes.writeUInt32BE(nbdOption.go, 12);
  bytes.writeUInt32BE(4 + name.length + 2, 16);
  bytes.writeUInt32BE(name.length, 20);
  name.copy(bytes, 24);
  return bytes;
}

export interface OptionReplyHead {
  readonly type: number;
  readonly length: number;
}

/** Null where it answers no GO. */
export function decodeOptionReplyHead(bytes: Buffer): OptionReplyHead | null {
  const fits =
    bytes.readUInt32BE(0) === nbdMagic.optionReplyHigh &&
    bytes.readUInt32BE(4) === nbdMagic.optionReplyLow &&
    bytes.readUInt32BE(8) === nbdOption.go;
  const length = bytes.readUInt32BE(16);
  return fits && length <= optionReplyBytesMax ? { type: bytes.readUInt32BE(12), length } : null;
}

export function isRefusal({ type }: OptionReplyHead): boolean {
  return type >= nbdOptionReply.unsupported;
}

/** The export's size, where the reply tells it. */
export function sizeOfInfo(head: OptionReplyHead, data: Buffer): number | null {
  if (head.type !== nbdOptionReply.info || data.length < 12 || data.readUInt16BE(0) !== nbdInfo.export)
    return null;
  return Number(data.readBigUInt64BE(2));
}

export function encodeRequest(
  type: number,
  flags: number,
  cookie: number,
  offset: number,
  length: number,
): Buffer {
  const bytes = Buffer.allocUnsafe(requestHeadBytes);
  bytes.writeUInt32BE(nbdMagic.request, 0);
  bytes.writeUInt16BE(flags, 4);
  bytes.writeUInt16BE(type, 6);
  bytes.writeBigUInt64BE(BigInt(cookie), 8);
  bytes.writeBigUInt64BE(BigInt(offset), 16);
  bytes.writeUInt32BE(length, 24);
  return bytes;
}

/** Null where no simple reply starts there. */
export function decodeReplyHead(
  bytes: Buffer,
  at: number,
): { readonly errno: number; readonly cookie: number } | null {
  if (bytes.readUInt32BE(at) !== nbdMagic.simpleReply) return null;
  return { errno: bytes.readUInt32BE(at + 4), cookie: Number(bytes.readBigUInt64BE(at + 8)) };
}
