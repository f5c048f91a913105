/*
 * Where history must end so that a bucket keeps within its cap: the oldest log of all volumes goes first, until enough of it went. Pure;
 * the collector asks after it has counted what is named. See docs/specs/retention.md, "A cap".
 */
import type { VolumeManifest } from "./archive.ts";

export type CappedLog = Pick<VolumeManifest, "pages" | "segments">;

interface Piece {
  readonly wallMaxMs: number;
  readonly bytes: number;
}

/**
 * History from before this time goes, whatever its window is: milliseconds since 1970, at most `nowMs`. `excessBytes` is more than 0:
 * so many bytes of segments are older than that, or all of them are.
 */
export function capCutoff(volumes: readonly CappedLog[], excessBytes: number, nowMs: number): number {
  const pieces = volumes.flatMap(piecesOf).sort((a, b) => a.wallMaxMs - b.wallMaxMs);
  let bytes = 0;
  for (const piece of pieces) {
    bytes += piece.bytes;
    if (bytes >= excessBytes) return Math.min(piece.wallMaxMs + 1, nowMs);
  }
  return nowMs;
}

/** What a page's segments take in the bucket is estimated by those that the manifest names itself. */
function piecesOf({ pages, segments }: CappedLog): readonly Piece[] {
  const recordBytes = segments.reduce((sum, segment) => sum + segment.recordBytes, 0);
  const bytes = segments.reduce((sum, segment) => sum + segment.bytes, 0);
  const ratio = recordBytes === 0 ? 1 : bytes / recordBytes;
  return [
    ...pages.map((page) => ({ wallMaxMs: page.wallMaxMs, bytes: page.recordBytes * ratio })),
    ...segments,
  ];
}
