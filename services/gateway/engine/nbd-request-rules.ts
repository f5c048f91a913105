/*
 * What the protocol allows a request to be: command, flags, range, payload. Pure; nbd-transmission.ts asks before anything
 * reaches the export, so that a refused request has no effect. Errno values as docs/formats/nbd.md lists them; the order of
 * the checks is part of the rule. Next on a good request's way: the block export.
 */
import { errorTable, FileStoreError, type VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { type NbdReplyStyle, nbdCommand, nbdCommandFlag, nbdErrno } from "#shared/formats/nbd-numbers.ts";
import type { RequestHeader } from "#shared/formats/nbd-transmission.ts";

export interface Refusal {
  readonly errno: number;
  readonly message: string;
}

/** What the rules need to know of the session. */
export interface SessionFacts {
  readonly style: NbdReplyStyle;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly hasContexts: boolean;
}

const refusal = (errno: number, message: string): Refusal => ({ errno, message });

export const refusals = {
  unknownCommand: refusal(nbdErrno.EINVAL, "unknown command"),
  flags: refusal(nbdErrno.EINVAL, "a flag that this command does not have"),
  payloadMissing: refusal(nbdErrno.EINVAL, "a write with extended headers needs the flag PAYLOAD_LEN"),
  payloadUnwanted: refusal(nbdErrno.EINVAL, "this command takes no payload"),
  readOnly: refusal(nbdErrno.EPERM, "the export is read-only"),
  payloadTooLong: refusal(nbdErrno.EINVAL, "longer than the maximum payload"),
  fragmentTooLong: refusal(nbdErrno.EOVERFLOW, "longer than one chunk can be"),
  outside: refusal(nbdErrno.EINVAL, "the range ends beyond the export"),
  outsideNoSpace: refusal(nbdErrno.ENOSPC, "the range ends beyond the export"),
  flushRange: refusal(nbdErrno.EINVAL, "FLUSH takes neither offset nor length"),
  noContext: refusal(nbdErrno.EINVAL, "no metadata context was chosen"),
  statusOfNothing: refusal(nbdErrno.EINVAL, "block status of an empty range"),
} as const;

/** Flags by command, beside FUA, which every command takes. */
function allowedFlags(type: number, style: NbdReplyStyle): number {
  const flag = nbdCommandFlag;
  switch (type) {
    case nbdCommand.read:
      return flag.fua | (style === "simple" ? 0 : flag.dontFragment);
    case nbdCommand.write:
      return flag.fua | (style === "extended" ? flag.payloadLength : 0);
    case nbdCommand.writeZeroes:
      return flag.fua | flag.noHole | flag.fastZero;
    case nbdCommand.blockStatus:
      return flag.fua | flag.requestOne;
    default:
      return flag.fua;
  }
}

/** Bytes that follow the header, whatever becomes of the request. */
export function payloadBytesOf(header: Readonly<RequestHeader>, style: NbdReplyStyle): number {
  if (style !== "extended") return header.type === nbdCommand.write ? header.length : 0;
  return (header.flags & nbdCommandFlag.payloadLength) !== 0 ? header.length : 0;
}

/** Why the request may not go on; null where it may. */
export function refuse(header: Readonly<RequestHeader>, facts: SessionFacts): Refusal | null {
  const { type, flags, length } = header;
  if (type > nbdCommand.blockStatus) return refusals.unknownCommand;
  if (type === nbdCommand.disconnect) return null;
  if (facts.style === "extended") {
    const withPayload = (flags & nbdCommandFlag.payloadLength) !== 0;
    if (type === nbdCommand.write && !withPayload) return refusals.payloadMissing;
    if (type !== nbdCommand.write && withPayload) return refusals.payloadUnwanted;
  }
  if ((flags & ~allowedFlags(type, facts.style)) !== 0) return refusals.flags;
  const effect = type === nbdCommand.write || type === nbdCommand.trim || type === nbdCommand.writeZeroes;
  if (effect && facts.readOnly) return refusals.readOnly;
  if (type === nbdCommand.flush) {
    return header.offset === 0 && length === 0 ? null : refusals.flushRange;
  }
  if ((type === nbdCommand.read || type === nbdCommand.write) && length > limits.nbdPayloadBytesMax) {
    return (flags & nbdCommandFlag.dontFragment) !== 0 ? refusals.fragmentTooLong : refusals.payloadTooLong;
  }
  if (header.offset > facts.sizeBytes || length > facts.sizeBytes - header.offset) {
    const growing = type === nbdCommand.write || type === nbdCommand.writeZeroes;
    return growing ? refusals.outsideNoSpace : refusals.outside;
  }
  if (type !== nbdCommand.blockStatus) return null;
  if (!facts.hasContexts) return refusals.noContext;
  return length === 0 ? refusals.statusOfNothing : null;
}

/** What an error of the volume is on the wire. */
export function errnoOf(error: VarveError): number {
  // Of a file that is not there the client can't know: its request was in order.
  if (error instanceof FileStoreError && error.kind === "Invalid") return nbdErrno.EIO;
  return errorTable[error.kind].nbdErrno;
}
