/*
 * The handshake's bytes (docs/formats/nbd.md, section 2): the server's greeting, option headers and data, option replies.
 * Called by services/gateway/engine/nbd-negotiation.ts. Cold code: it allocates freely, and it trusts no length that
 * a client claims. Decoders return null for data that the protocol does not allow.
 */
import { limits } from "#shared/domain/limits.ts";
import { nbdHandshakeFlag, nbdInfo, nbdMagic } from "./nbd-numbers.ts";
import { encodeUint64 } from "./nbd-transmission.ts";

export const optionHeaderBytes = 16;
export const clientFlagBytes = 4;

export interface OptionHeader {
  readonly option: number;
  readonly length: number;
}

/** INFO's and GO's data. */
export interface InfoRequest {
  readonly exportName: string;
  readonly infoTypes: readonly number[];
}

/** LIST_META_CONTEXT's and SET_META_CONTEXT's data. */
export interface MetaContextQuery {
  readonly exportName: string;
  readonly queries: readonly string[];
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** NBDMAGIC, IHAVEOPT, handshake flags: 18 bytes. */
export function encodeGreeting(): Uint8Array {
  const bytes = new Uint8Array(18);
  const view = viewOf(bytes);
  view.setUint32(0, nbdMagic.helloHigh);
  view.setUint32(4, nbdMagic.helloLow);
  view.setUint32(8, nbdMagic.optionHigh);
  view.setUint32(12, nbdMagic.optionLow);
  view.setUint16(16, nbdHandshakeFlag.fixedNewstyle | nbdHandshakeFlag.noZeroes);
  return bytes;
}

/** The client's flags at `at`, or null where a bit is set that this server did not offer. */
export function decodeClientFlags(view: DataView, at: number): { readonly noZeroes: boolean } | null {
  const flags = view.getUint32(at);
  const known = nbdHandshakeFlag.fixedNewstyle | nbdHandshakeFlag.noZeroes;
  if ((flags & ~known) !== 0 || (flags & nbdHandshakeFlag.fixedNewstyle) === 0) return null;
  return { noZeroes: (flags & nbdHandshakeFlag.noZeroes) !== 0 };
}

/** An option's header, or null where its magic is wrong (close). */
export function decodeOptionHeader(view: DataView, at: number): OptionHeader | null {
  if (view.getUint32(at) !== nbdMagic.optionHigh || view.getUint32(at + 4) !== nbdMagic.optionLow)
    return null;
  return { option: view.getUint32(at + 8), length: view.getUint32(at + 12) };
}

/** An export name or a query: UTF-8 of at most limits.nbdNameBytesMax bytes without NUL; null where it is not. */
export function decodeName(bytes: Uint8Array): string | null {
  if (bytes.length > limits.nbdNameBytesMax || bytes.includes(0)) return null;
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

export function decodeInfoRequest(data: Uint8Array): InfoRequest | null {
  const view = viewOf(data);
  if (data.length < 6) return null;
  const nameBytes = view.getUint32(0);
  if (nameBytes > data.length - 6) return null;
  const exportName = decodeName(data.subarray(4, 4 + nameBytes));
  const count = view.getUint16(4 + nameBytes);
  if (exportName === null || data.length !== 6 + nameBytes + 2 * count) return null;
  const infoTypes: number[] = [];
  for (let at = 6 + nameBytes; at < data.length; at += 2) infoTypes.push(view.getUint16(at));
  return { exportName, infoTypes };
}

export function decodeMetaContextQuery(data: Uint8Array): MetaContextQuery | null {
  const view = viewOf(data);
  if (data.length < 8) return null;
  const nameBytes = view.getUint32(0);
  if (nameBytes > data.length - 8) return null;
  const exportName = decodeName(data.subarray(4, 4 + nameBytes));
  const count = view.getUint32(4 + nameBytes);
  if (exportName === null) return null;
  const queries: string[] = [];
  let at = 8 + nameBytes;
  for (let index = 0; index < count; index += 1) {
    if (data.length - at < 4) return null;
    const length = view.getUint32(at);
    if (length > data.length - at - 4) return null;
    const query = decodeName(data.subarray(at + 4, at + 4 + length));
    if (query === null) return null;
    queries.push(query);
    at += 4 + length;
  }
  return at === data.length ? { exportName, queries } : null;
}

/** An option's reply: magic, the option, the reply's type, length, data. */
export function encodeOptionReply(
  option: number,
  type: number,
  data: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const bytes = new Uint8Array(20 + data.length);
  const view = viewOf(bytes);
  view.setUint32(0, nbdMagic.optionReplyHigh);
  view.setUint32(4, nbdMagic.optionReplyLow);
  view.setUint32(8, option);
  view.setUint32(12, type);
  view.setUint32(16, data.length);
  bytes.set(data, 20);
  return bytes;
}

/** Data of a LIST reply: the name's length, the name, a description behind it. */
export function encodeListedExport(name: string, description: string): Uint8Array {
  const nameBytes = new TextEncoder().encode(name);
  const descriptionBytes = new TextEncoder().encode(description);
  const data = new Uint8Array(4 + nameBytes.length + descriptionBytes.length);
  viewOf(data).setUint32(0, nameBytes.length);
  data.set(nameBytes, 4);
  data.set(descriptionBytes, 4 + nameBytes.length);
  return data;
}

/** NBD_INFO_EXPORT. */
export function encodeExportInfo(sizeBytes: number, flags: number): Uint8Array {
  const data = new Uint8Array(12);
  const view = viewOf(data);
  view.setUint16(0, nbdInfo.export);
  encodeUint64(view, 2, sizeBytes);
  view.setUint16(10, flags);
  return data;
}

/** NBD_INFO_NAME or NBD_INFO_DESCRIPTION. */
export function encodeTextInfo(type: number, text: string): Uint8Array {
  const textBytes = new TextEncoder().encode(text);
  const data = new Uint8Array(2 + textBytes.length);
  viewOf(data).setUint16(0, type);
  data.set(textBytes, 2);
  return data;
}

/** NBD_INFO_BLOCK_SIZE. */
export function encodeBlockSizeInfo(preferredBytes: number): Uint8Array {
  const data = new Uint8Array(14);
  const view = viewOf(data);
  view.setUint16(0, nbdInfo.blockSize);
  view.setUint32(2, 1);
  view.setUint32(6, preferredBytes);
  view.setUint32(10, limits.nbdPayloadBytesMax);
  return data;
}

/** A REP_META_CONTEXT's data: the context's id (0 where only listed) and its name. */
export function encodeMetaContext(id: number, name: string): Uint8Array {
  const nameBytes = new TextEncoder().encode(name);
  const data = new Uint8Array(4 + nameBytes.length);
  viewOf(data).setUint32(0, id);
  data.set(nameBytes, 4);
  return data;
}

/** EXPORT_NAME's answer: size and flags, then 124 zeroes unless the client asked to leave them out. */
export function encodeExportNameReply(sizeBytes: number, flags: number, noZeroes: boolean): Uint8Array {
  const bytes = new Uint8Array(noZeroes ? 10 : 134);
  const view = viewOf(bytes);
  encodeUint64(view, 0, sizeBytes);
  view.setUint16(8, flags);
  return bytes;
}
