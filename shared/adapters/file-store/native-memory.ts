/*
 * Native memory of the native file store: page-aligned slabs from mmap, and the blocks that gathered IO describes its
 * pieces in. Owns the mappings; nothing is unmapped while the process lives, because JavaScript may still hold a view.
 * Called by native.ts (slabs) and native-file.ts (iovecs); the addresses go to the kernel as they are.
 */
import { FileStoreError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import type { Slab, SlabPiece } from "#shared/ports/slab.ts";
import { errnoName, lastErrno, libc, linux, viewMemory } from "./libc.ts";

const pageBytes = 4096;
const mapFailed = -1;
/** Bytes of a struct iovec: address and length, 8 bytes each. */
const iovecBytes = 16;
/** 256 pieces per call, a quarter of the kernel's IOV_MAX; a longer gather goes on as a short write does. */
const iovecsPerBlock = 256;

function mapMemory(bytes: number): number {
  const address = libc.mmap(0, bytes, linux.PROT_READ_WRITE, linux.MAP_PRIVATE_ANONYMOUS, -1, 0);
  if (address === mapFailed) throw new FileStoreError("mmap", `${bytes} bytes`, errnoName(lastErrno()));
  return address;
}

export function mapSlab(bytes: number): Slab {
  invariant(bytes > 0 && bytes % pageBytes === 0, "a slab is whole pages");
  const address = mapMemory(bytes);
  return { bytes: Buffer.from(viewMemory(address, bytes)), address };
}

/** The pages' content is gone and their memory is the system's again; the next use finds zeroes. */
export function dropPages(slab: Slab): void {
  if (libc.madvise(slab.address, slab.bytes.byteLength, linux.MADV_DONTNEED) !== 0) {
    throw new FileStoreError("madvise", `${slab.bytes.byteLength} bytes`, errnoName(lastErrno()));
  }
}

/** Memory for the iovecs of one call. Taken for the time of a call, so that a call allocates nothing. */
export class IovecBlock {
  readonly address: number;
  /** Number of iovecs after the last fill. */
  count = 0;
  /** Bytes that they cover. */
  byteLength = 0;
  readonly #words: Uint32Array;

  constructor(address: number, memory: ArrayBuffer, start: number) {
    this.address = address;
    this.#words = new Uint32Array(memory, start, (iovecsPerBlock * iovecBytes) / 4);
  }

  fillOne(address: number, length: number): void {
    this.#put(0, address, length);
    this.count = 1;
    this.byteLength = length;
  }

  /** Describes the pieces behind the first `skipBytes`, as many as fit. */
  fill(pieces: readonly SlabPiece[], skipBytes: number): void {
    let skip = skipBytes;
    this.count = 0;
    this.byteLength = 0;
    for (const piece of pieces) {
      if (skip >= piece.length) {
        skip -= piece.length;
        continue;
      }
      if (this.count === iovecsPerBlock) return;
      const length = piece.length - skip;
      this.#put(this.count, piece.slab.address + piece.start + skip, length);
      this.count += 1;
      this.byteLength += length;
      skip = 0;
    }
  }

  #put(index: number, address: number, length: number): void {
    const at = index * 4;
    // Both architectures are little-endian; a slab is below 4 GiB.
    this.#words[at] = address % 0x1_0000_0000;
    this.#words[at + 1] = Math.floor(address / 0x1_0000_0000);
    this.#words[at + 2] = length;
    this.#words[at + 3] = 0;
  }
}

const freeBlocks: IovecBlock[] = [];

/** A block of iovecs for one call; more are mapped when all are in use. */
export function takeIovecs(): IovecBlock {
  const free = freeBlocks.pop();
  if (free !== undefined) return free;
  const blockBytes = iovecsPerBlock * iovecBytes;
  const mappedBytes = 16 * blockBytes;
  const address = mapMemory(mappedBytes);
  const memory = viewMemory(address, mappedBytes);
  for (let start = 0; start < mappedBytes; start += blockBytes) {
    freeBlocks.push(new IovecBlock(address + start, memory, start));
  }
  return takeIovecs();
}

export function returnIovecs(block: IovecBlock): void {
  freeBlocks.push(block);
}
