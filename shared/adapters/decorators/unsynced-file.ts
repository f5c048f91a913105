/*
 * A file whose unsynced writes stay in process memory: reads see them, kill -9 loses them. A sync or a durable write takes
 * them down, in order, before it syncs. Opened by dropping-unsynced.ts; below it stands the native store's file. Two opens of
 * one file share the bytes.
 */
import type { BlockFile, FileFacts, FileOperation } from "#shared/ports/file-store.ts";
import type { Slab, SlabPiece } from "#shared/ports/slab.ts";
import type { UnsyncedBytes, UnsyncedStep } from "./unsynced-bytes.ts";

/** What all opens of one file share. */
export interface SharedFile {
  readonly bytes: UnsyncedBytes;
  /** Size of the file below; what lies past it comes from patches and zeroes. */
  belowBytes: number;
  /** Syncs follow each other, so that steps go down in order. */
  lastSync: Promise<unknown>;
}

export class UnsyncedFile implements BlockFile {
  readonly path: string;
  readonly direct: boolean;
  readonly #below: BlockFile;
  readonly #shared: SharedFile;
  readonly #slab: () => Slab;

  /** `slab`: memory that steps go down through; used only between two awaits. */
  constructor(path: string, below: BlockFile, shared: SharedFile, slab: () => Slab) {
    this.path = path;
    this.direct = below.direct;
    this.#below = below;
    this.#shared = shared;
    this.#slab = slab;
  }

  readInline(slab: Slab, start: number, length: number, offset: number): number {
    const { bytes, belowBytes } = this.#shared;
    if (bytes.empty) return this.#below.readInline(slab, start, length, offset);
    const wanted = Math.max(0, Math.min(length, bytes.sizeBytes - offset));
    const inBelow = Math.max(0, Math.min(wanted, belowBytes - offset));
    let count = wanted;
    if (inBelow > 0) {
      const got = this.#below.readInline(slab, start, inBelow, offset);
      if (got < 0) return -1;
      if (got < inBelow) count = got;
    }
    if (count > inBelow) slab.bytes.fill(0, start + inBelow, start + count);
    bytes.cover(slab.bytes.subarray(start, start + count), offset);
    return count;
  }

  async read(slab: Slab, start: number, length: number, offset: number): Promise<void> {
    const { bytes } = this.#shared;
    await this.#below.read(slab, start, length, offset);
    const inside = Math.max(0, Math.min(length, bytes.sizeBytes - offset));
    bytes.cover(slab.bytes.subarray(start, start + inside), offset);
    slab.bytes.fill(0, start + inside, start + length);
  }

  async write(pieces: readonly SlabPiece[], offset: number): Promise<void> {
    this.writeInline(pieces, offset);
  }

  writeInline(pieces: readonly SlabPiece[], offset: number): void {
    // A closed file, or one that may not be written, answers as the one below does.
    this.#below.writeInline([], offset);
    let at = offset;
    for (const piece of pieces) {
      const data = Uint8Array.from(piece.slab.bytes.subarray(piece.start, piece.start + piece.length));
      this.#shared.bytes.add({ kind: "write", data, offset: at });
      at += piece.length;
    }
  }

  async writeDurable(pieces: readonly SlabPiece[], offset: number): Promise<void> {
    if (this.#shared.bytes.empty) await this.#below.writeDurable(pieces, offset);
    else {
      this.writeInline(pieces, offset);
      await this.sync();
    }
    this.#grew(pieces, offset);
  }

  writeDurableInline(pieces: readonly SlabPiece[], offset: number): void {
    this.#below.writeDurableInline(pieces, offset);
    // Older steps of the same range must not come over it when they go down.
    if (!this.#shared.bytes.empty) this.writeInline(pieces, offset);
    this.#grew(pieces, offset);
  }

  #grew(pieces: readonly SlabPiece[], offset: number): void {
    const end = pieces.reduce((sum, piece) => sum + piece.length, offset);
    this.#shared.belowBytes = Math.max(this.#shared.belowBytes, end);
    this.#shared.bytes.sizeBytes = Math.max(this.#shared.bytes.sizeBytes, end);
  }

  sync(): Promise<void> {
    return this.#afterSyncs(() => this.#below.sync());
  }

  syncWithTimes(): Promise<void> {
    return this.#afterSyncs(() => this.#below.syncWithTimes());
  }

  #afterSyncs(syncBelow: () => Promise<void>): Promise<void> {
    const synced = this.#shared.lastSync.then(async () => {
      const { steps, forget } = this.#shared.bytes.take();
      await this.#passDown(steps);
      await syncBelow();
      forget();
    });
    this.#shared.lastSync = synced.catch(() => undefined);
    return synced;
  }

  /** Writes go down without a pause between them: a durable write on this thread never stands in the middle of older bytes. */
  async #passDown(steps: readonly UnsyncedStep[]): Promise<void> {
    for (const step of steps) {
      if (step.kind === "write") this.#writeBelow(step.data, step.offset);
      else {
        await this.#below.applyAll([step]);
        if (step.kind === "truncate") this.#shared.belowBytes = step.sizeBytes;
      }
    }
  }

  #writeBelow(data: Uint8Array, offset: number): void {
    const slab = this.#slab();
    for (let done = 0; done < data.length; ) {
      const length = Math.min(slab.bytes.byteLength, data.length - done);
      slab.bytes.set(data.subarray(done, done + length), 0);
      this.#below.writeInline([{ slab, start: 0, length }], offset + done);
      done += length;
    }
    this.#shared.belowBytes = Math.max(this.#shared.belowBytes, offset + data.length);
  }

  async writeBack(_offset: number, _length: number): Promise<void> {
    // Nothing goes down before a sync: that is the point.
  }

  async applyAll(operations: readonly FileOperation[]): Promise<void> {
    this.#below.writeInline([], 0);
    for (const operation of operations) {
      if (operation.kind === "write") this.writeInline([operation.piece], operation.offset);
      else if (operation.kind === "truncate" && operation.sizeBytes < 0)
        await this.#below.applyAll([operation]);
      else this.#shared.bytes.add(operation);
    }
  }

  allocate(offset: number, length: number): Promise<void> {
    return this.#below.allocate(offset, length);
  }

  async truncate(sizeBytes: number): Promise<void> {
    await this.applyAll([{ kind: "truncate", sizeBytes }]);
  }

  /** Whatever is patched counts as data; a trim that was not synced leaves its blocks for now. */
  nextData(offset: number): number {
    const { bytes } = this.#shared;
    const below = this.#below.nextData(offset);
    if (bytes.empty) return below;
    if (offset >= bytes.sizeBytes) return -1;
    if (bytes.patchedUntil(offset) > offset) return offset;
    const patched = bytes.nextPatched(offset);
    const found = below === -1 ? patched : patched === -1 ? below : Math.min(below, patched);
    return found < bytes.sizeBytes ? found : -1;
  }

  nextHole(offset: number): number {
    const { bytes } = this.#shared;
    if (bytes.empty) return this.#below.nextHole(offset);
    if (offset >= bytes.sizeBytes) return offset;
    let at = offset;
    for (;;) {
      const next = Math.max(
        bytes.patchedUntil(at),
        at < this.#shared.belowBytes ? this.#below.nextHole(at) : at,
      );
      if (next >= bytes.sizeBytes) return bytes.sizeBytes;
      if (next === at) return at;
      at = next;
    }
  }

  async facts(): Promise<FileFacts> {
    const below = await this.#below.facts();
    const { bytes } = this.#shared;
    return bytes.empty ? below : { ...below, sizeBytes: bytes.sizeBytes };
  }

  lockAsImageWriter(): void {
    this.#below.lockAsImageWriter();
  }

  close(): Promise<void> {
    return this.#below.close();
  }
}
