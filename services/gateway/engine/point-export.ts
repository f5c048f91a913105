/*
 * A point of a volume as an NBD export: the read-only twin of volume-export.ts. An NBD connection reads through it from the
 * shared PointSource (point-sources.ts); requests with an effect are refused before they get here (nbd-request-rules.ts).
 */
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import type { BlockExport, Completion, WriteSlot } from "#shared/ports/block-export.ts";
import type { ByteRange, PointSource } from "#shared/ports/history.ts";
import type { AllocationRun } from "#shared/ports/replica-image.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { PointHold } from "./point-sources.ts";

export interface PointExportOptions {
  readonly name: string;
  readonly description: string;
  readonly hold: PointHold;
  /** The hold's source, open. */
  readonly source: PointSource;
  /** Where it differs from another point. */
  readonly changes: (since: string) => Promise<readonly ByteRange[]>;
}

export class PointExport implements BlockExport {
  readonly name: string;
  readonly description: string;
  readonly sizeBytes: number;
  readonly readOnly = true;
  readonly preferredBlockBytes = 4096;
  private readonly options: PointExportOptions;
  private source: PointSource;
  private closed = false;

  constructor(options: PointExportOptions) {
    this.name = options.name;
    this.description = options.description;
    this.sizeBytes = options.source.sizeBytes;
    this.options = options;
    this.source = options.source;
  }

  read(offset: number, length: number, slab: Slab, start: number, done: Completion): boolean {
    this.readLater(offset, length, slab, start).then(
      () => done.complete(null),
      (cause: unknown) => done.complete(toVarveError(cause, `read ${this.name}`)),
    );
    return false;
  }

  write(
    _offset: number,
    _source: Slab,
    _sourceStart: number,
    _length: number,
    _fua: boolean,
    done: Completion,
  ): boolean {
    return this.refuse(done);
  }

  /** Nobody asks: a read-only export's payloads are skipped. */
  reserveWrite(): WriteSlot | null {
    return null;
  }

  writeReserved(_slot: WriteSlot, _offset: number, _fua: boolean, done: Completion): void {
    this.refuse(done);
  }

  cancelReserved(): void {}

  onRoom(callback: () => void): void {
    queueMicrotask(callback);
  }

  zero(_offset: number, _length: number, _allocate: boolean, _fua: boolean, done: Completion): boolean {
    return this.refuse(done);
  }

  trim(_offset: number, _length: number, _fua: boolean, done: Completion): boolean {
    return this.refuse(done);
  }

  flush(done: Completion): void {
    queueMicrotask(() => done.complete(null));
  }

  cache(_offset: number, _length: number, done: Completion): void {
    queueMicrotask(() => done.complete(null));
  }

  blockStatus(offset: number, length: number, runsMax: number): readonly AllocationRun[] {
    return this.source.allocation(offset, length, runsMax);
  }

  /** Nothing of a point is kept on this machine. */
  isLocal(): boolean {
    return false;
  }

  async changesSince(point: string): Promise<readonly ByteRange[]> {
    return await this.options.changes(point);
  }

  endOfInput(): void {}

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.options.hold.release();
  }

  private async readLater(offset: number, length: number, slab: Slab, start: number): Promise<void> {
    // The volume may have been closed for a change since: then this opens the same point again.
    this.source = await this.options.hold.source();
    await this.source.read(slab, start, length, offset);
  }

  private refuse(done: Completion): boolean {
    const error = new VarveError("ReadOnlyError", "Invalid", `${this.name} is a point in time: read-only`, {
      hint: "To write, make a volume of it: varve volume create NEW --from VOL@POINT.",
    });
    queueMicrotask(() => done.complete(error));
    return true;
  }
}
