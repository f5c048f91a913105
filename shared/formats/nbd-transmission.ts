/*
 * Request and reply headers of the transmission phase (docs/formats/nbd.md, section 3), decoded into a reused object and
 * encoded in place: nothing is allocated per request. Called by services/gateway/engine/nbd-transmission.ts and
 * nbd-replies.ts. A DataView reads and writes big-endian by default, as the wire wants it.
 */
import { type NbdReplyStyle, nbdMagic, nbdTransmissionFlag } from "./nbd-numbers.ts";

export const requestBytes = 28;
export const extendedRequestBytes = 32;
export const simpleReplyBytes = 16;
export const structuredReplyBytes = 20;
export const extendedReplyBytes = 32;

const wordRange = 2 ** 32;

/**
 * One request header. Cookie and offset stay as the words that came, for the echo. As numbers, offset and length are exact
 * up to 2^53; above they are rounded, yet still far beyond every volume, so that range checks refuse them.
 */
export class RequestHeader {
  flags = 0;
  type = 0;
  cookieHigh = 0;
  cookieLow = 0;
  offsetHigh = 0;
  offsetLow = 0;
  offset = 0;
  length = 0;
}

/** Bytes of a request header in this style. */
export function requestHeaderBytes(style: NbdReplyStyle): number {
  return style === "extended" ? extendedRequestBytes : requestBytes;
}

/** Decodes the header at `at`; false where the magic is not the negotiated one (the connection must be closed then). */
export function decodeRequest(view: DataView, at: number, extended: boolean, header: RequestHeader): boolean {
  if (view.getUint32(at) !== (extended ? nbdMagic.extendedRequest : nbdMagic.request)) return false;
  header.flags = view.getUint16(at + 4);
  header.type = view.getUint16(at + 6);
  header.cookieHigh = view.getUint32(at + 8);
  header.cookieLow = view.getUint32(at + 12);
  header.offsetHigh = view.getUint32(at + 16);
  header.offsetLow = view.getUint32(at + 20);
  header.offset = header.offsetHigh * wordRange + header.offsetLow;
  header.length = extended
    ? view.getUint32(at + 24) * wordRange + view.getUint32(at + 28)
    : view.getUint32(at + 24);
  return true;
}

export function encodeSimpleReply(
  view: DataView,
  at: number,
  errno: number,
  cookieHigh: number,
  cookieLow: number,
): void {
  view.setUint32(at, nbdMagic.simpleReply);
  view.setUint32(at + 4, errno);
  view.setUint32(at + 8, cookieHigh);
  view.setUint32(at + 12, cookieLow);
}

/** A structured reply's header; `payloadBytes` counts what follows it. */
export function encodeStructuredReply(
  view: DataView,
  at: number,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  payloadBytes: number,
): void {
  view.setUint32(at, nbdMagic.structuredReply);
  view.setUint16(at + 4, flags);
  view.setUint16(at + 6, type);
  view.setUint32(at + 8, cookieHigh);
  view.setUint32(at + 12, cookieLow);
  view.setUint32(at + 16, payloadBytes);
}

/** An extended reply's header: like a structured one, with the request's offset and a 64-bit length. */
export function encodeExtendedReply(
  view: DataView,
  at: number,
  flags: number,
  type: number,
  request: Readonly<RequestHeader>,
  payloadBytes: number,
): void {
  view.setUint32(at, nbdMagic.extendedReply);
  view.setUint16(at + 4, flags);
  view.setUint16(at + 6, type);
  view.setUint32(at + 8, request.cookieHigh);
  view.setUint32(at + 12, request.cookieLow);
  view.setUint32(at + 16, request.offsetHigh);
  view.setUint32(at + 20, request.offsetLow);
  view.setUint32(at + 24, 0);
  view.setUint32(at + 28, payloadBytes);
}

/** A 64-bit number ≤ 2^53 as two words. */
export function encodeUint64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / wordRange));
  view.setUint32(at + 4, value % wordRange);
}

/** What the server says of an export when it is chosen. A read-only one offers no effects on data. */
export function transmissionFlags(readOnly: boolean, style: NbdReplyStyle): number {
  const flag = nbdTransmissionFlag;
  const always = flag.hasFlags | flag.sendFlush | flag.sendFua | flag.canMultiConn | flag.sendCache;
  const access = readOnly ? flag.readOnly : flag.sendTrim | flag.sendWriteZeroes | flag.sendFastZero;
  return always | access | (style === "simple" ? 0 : flag.sendDf);
}
