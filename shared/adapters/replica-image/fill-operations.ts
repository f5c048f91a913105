/*
 * What a fill writes: of a fetched extent the ranges that are not in the file, data as writes, zeroes as holes, so that a
 * thin disk stays thin. Called by image-extents.ts in a turn; nothing is done here.
 */
import { limits } from "#shared/domain/limits.ts";
import type { FileOperation } from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { ExtentTable } from "./extent-table.ts";

/** Zeroes are looked for in pieces of this size: a hole that is shorter saves less than it costs. */
const pieceBytes = 64 * 1024;
const zeroes = Buffer.alloc(pieceBytes);

/** `slab.bytes[0]` is the extent's first byte. */
export function fillOperations(table: ExtentTable, extent: number, slab: Slab): FileOperation[] {
  const base = extent * limits.extentBytes;
  const end = Math.min(base + limits.extentBytes, table.sizeBytes);
  const operations: FileOperation[] = [];
  table.visit(base, end, (from, to, point) => {
    if (point === null) return;
    let start = from;
    let zero: boolean | null = null;
    for (let at = from; at < to; ) {
      const pieceEnd = Math.min(to, (Math.floor(at / pieceBytes) + 1) * pieceBytes);
      const isZero = slab.bytes.compare(zeroes, 0, pieceEnd - at, at - base, pieceEnd - base) === 0;
      if (zero !== null && zero !== isZero) {
        operations.push(operationOf(zero, slab, start, at, base));
        start = at;
      }
      zero = isZero;
      at = pieceEnd;
    }
    if (zero !== null) operations.push(operationOf(zero, slab, start, to, base));
  });
  return operations;
}

function operationOf(zero: boolean, slab: Slab, from: number, to: number, base: number): FileOperation {
  const length = to - from;
  if (zero) return { kind: "punch", offset: from, length };
  return { kind: "write", piece: { slab, start: from - base, length }, offset: from };
}
