/*
 * Memory of the data path: a slab is a page-aligned piece of memory that kernel and JavaScript both see.
 * A payload is received into one slab, checksummed, written to the log and to the image from there: no copy between.
 * FileStore adapters allocate slabs; shared/memory/slab-pool.ts hands them out and bounds them.
 */

/** A page-aligned block of memory. `address` is its native address (0 where an adapter has no native memory). */
export interface Slab {
  readonly bytes: Buffer;
  readonly address: number;
}

/** A half-open range of one slab: [start, start + length). */
export interface SlabPiece {
  readonly slab: Slab;
  readonly start: number;
  readonly length: number;
}
