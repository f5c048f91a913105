/*
 * How a handshake says why an export does not open: the reply's type by the error's kind, so that a client and whoever reads its
 * message can tell "there is no such disk" from "not now" (docs/formats/nbd.md, Handshake). The text is for humans. Called by
 * nbd-negotiation.ts.
 */
import type { ErrorKind, VarveError } from "#shared/domain/errors.ts";
import { type NbdOptionReplyNumber, nbdOptionReply } from "#shared/formats/nbd-numbers.ts";

const textCharactersMax = 1000;

/** Fenced: somebody newer serves it, and serves it again to who comes again. */
const byKind: Readonly<Record<ErrorKind, NbdOptionReplyNumber>> = {
  Retry: nbdOptionReply.shutdown,
  Fenced: nbdOptionReply.shutdown,
  Invalid: nbdOptionReply.invalid,
  Full: nbdOptionReply.platform,
  Corrupt: nbdOptionReply.platform,
  Internal: nbdOptionReply.platform,
};

/** What is Invalid because nothing has that name, and what is there and may not be had so. */
const byTag: Readonly<Record<string, NbdOptionReplyNumber>> = {
  PointNotThere: nbdOptionReply.unknown,
  PointInGap: nbdOptionReply.unknown,
  UnknownSnapshotError: nbdOptionReply.unknown,
  VolumeNotInBucket: nbdOptionReply.unknown,
  FlushVolumeRefused: nbdOptionReply.policy,
  HistoryOffError: nbdOptionReply.policy,
  VolumeMovedError: nbdOptionReply.policy,
};

export interface ExportRefusal {
  readonly type: NbdOptionReplyNumber;
  readonly text: string;
}

/** `error` null: nothing has that name. */
export function exportRefusal(name: string, error: VarveError | null): ExportRefusal {
  if (error === null) return { type: nbdOptionReply.unknown, text: `no export ${JSON.stringify(name)}` };
  const text = `${error.message}. ${error.hint}`.trim().slice(0, textCharactersMax);
  return { type: byTag[error._tag] ?? byKind[error.kind], text };
}
