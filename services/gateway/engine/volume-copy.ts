/*
 * Copies an open volume into one that a gateway of a cluster serves, over NBD, and compares the two afterwards. Called by
 * services/gateway/volume-move.ts for `varve volume move`; ranges that the source never wrote are passed over.
 */
import { VarveError } from "#shared/domain/errors.ts";
import { nbdCommand } from "#shared/formats/nbd-numbers.ts";
import type { BlockExport } from "#shared/ports/block-export.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { RelayLink } from "./relay-link.ts";

export interface CopyOptions {
  readonly source: BlockExport;
  readonly target: RelayLink;
  /** False: the target may hold bytes of an earlier try; then all of it is compared, also what the source never wrote. */
  readonly fresh: boolean;
  readonly allocateSlab: (bytes: number) => Slab;
  readonly onProgress: (doneBytes: number, totalBytes: number, what: "copying" | "comparing") => void;
  /** A piece was looked at, and written where it differed. */
  readonly onPiece: () => void;
}

export interface CopyFigures {
  readonly copiedBytes: number;
  readonly comparedBytes: number;
}

interface Piece {
  readonly offset: number;
  readonly length: number;
}

const pieceBytes = 512 * 1024;
const lanes = 8;
const zeroes = Buffer.alloc(pieceBytes);
const statusBytes = 1024 ** 3;
const statusRuns = 4096;

/** Resolves when every byte is durable in the target and was read back from it. */
export async function copyVolume(options: CopyOptions): Promise<CopyFigures> {
  const { source, target } = options;
  let [totalBytes, copiedBytes] = [0, 0];
  for (const { length } of piecesOf(options)) totalBytes += length;
  await eachPiece(options, totalBytes, "copying", async (piece, ours, theirs) => {
    await readSource(source, piece, ours);
    if (options.fresh ? !isZero(ours, piece) : !(await isSame(target, piece, ours, theirs))) {
      const payload = Buffer.from(ours.bytes.subarray(0, piece.length));
      await request(target, nbdCommand.write, piece, { payload });
      copiedBytes += piece.length;
    }
    options.onPiece();
  });
  await request(target, nbdCommand.flush, { offset: 0, length: 0 }, {});
  await eachPiece(options, totalBytes, "comparing", async (piece, ours, theirs) => {
    await readSource(source, piece, ours);
    if (!(await isSame(target, piece, ours, theirs))) throw differs(source.name, piece);
  });
  return { copiedBytes, comparedBytes: totalBytes };
}

async function eachPiece(
  options: CopyOptions,
  totalBytes: number,
  what: "copying" | "comparing",
  work: (piece: Piece, ours: Slab, theirs: Buffer) => Promise<void>,
): Promise<void> {
  const pieces = piecesOf(options);
  let doneBytes = 0;
  const lane = async (): Promise<void> => {
    const ours = options.allocateSlab(pieceBytes);
    const theirs = Buffer.allocUnsafeSlow(pieceBytes);
    for (let next = pieces.next(); next.done !== true; next = pieces.next()) {
      await work(next.value, ours, theirs).catch((cause: unknown) => {
        // One failure stops the whole copy: what others have under way is waited for, nothing more is begun.
        pieces.return();
        throw cause;
      });
      doneBytes += next.value.length;
      options.onProgress(doneBytes, totalBytes, what);
    }
  };
  const ended = await Promise.allSettled(Array.from({ length: lanes }, lane));
  const failed = ended.find((one) => one.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}

function* piecesOf({ source, fresh }: CopyOptions): Generator<Piece, void> {
  for (let at = 0; at < source.sizeBytes; ) {
    const runs = source.blockStatus(at, Math.min(statusBytes, source.sizeBytes - at), statusRuns);
    for (const run of runs) {
      at = run.offset + run.length;
      if (fresh && !run.allocated) continue;
      for (let offset = run.offset; offset < at; offset += pieceBytes) {
        yield { offset, length: Math.min(pieceBytes, at - offset) };
      }
    }
  }
}

async function readSource(source: BlockExport, { offset, length }: Piece, slab: Slab): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const done = { complete: (error: VarveError | null) => (error === null ? resolve() : reject(error)) };
    if (source.read(offset, length, slab, 0, done)) resolve();
  });
}

async function isSame(target: RelayLink, piece: Piece, ours: Slab, theirs: Buffer): Promise<boolean> {
  const bytes = theirs.subarray(0, piece.length);
  await request(target, nbdCommand.read, piece, { target: bytes });
  return bytes.equals(ours.bytes.subarray(0, piece.length));
}

function isZero({ bytes }: Slab, { length }: Piece): boolean {
  return zeroes.compare(bytes, 0, length, 0, length) === 0;
}

async function request(
  target: RelayLink,
  type: number,
  piece: Piece,
  parts: { readonly payload?: Buffer; readonly target?: Buffer },
): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    target.request(type, 0, piece, parts, (error) => (error === null ? resolve() : reject(error)));
  });
}

function differs(name: string, { offset, length }: Piece): VarveError {
  return new VarveError(
    "MoveDiffersError",
    "Corrupt",
    `volume ${name}: bytes ${offset} to ${offset + length} read back from the cluster are not those that were written`,
    {
      hint: "The volume was not moved and is served by varve up as before. Look at the storage nodes' disks, then move again.",
      fields: { name, offset, length },
    },
  );
}
