/*
 * One connection's view of an open volume: the BlockExport that an NBD connection talks to. It only forwards, so that the
 * session (volume-session.ts) knows how many clients are attached and a closed connection can no longer reach the volume.
 */
import { entryKind } from "#shared/domain/entry.ts";
import type { BlockExport, Completion, WriteSlot } from "#shared/ports/block-export.ts";
import type { ByteRange } from "#shared/ports/history.ts";
import type { AllocationRun } from "#shared/ports/replica-image.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { StrictReads } from "./strict-reads.ts";
import type { VolumeReader } from "./volume-reader.ts";
import type { VolumeWriter } from "./volume-writer.ts";

export interface VolumeExportOptions {
  readonly name: string;
  readonly description: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly reader: VolumeReader;
  readonly writer: VolumeWriter;
  readonly onRoom: (callback: () => void) => void;
  readonly onClose: (closed: VolumeExport) => void;
  /** Not there where nobody else could have written meanwhile. */
  readonly strictReads: StrictReads | undefined;
  readonly isLocal: ((extent: number) => boolean) | undefined;
  /** Where the volume differs from a point; see BlockExport.changesSince. */
  readonly changesSince: ChangesSince | undefined;
}

export type { StrictReads };
export type ChangesSince = (point: string) => Promise<readonly ByteRange[]>;

export class VolumeExport implements BlockExport {
  readonly name: string;
  readonly description: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly preferredBlockBytes = 4096;
  readonly isLocal?: (extent: number) => boolean;
  readonly changesSince?: ChangesSince;
  private readonly options: VolumeExportOptions;
  private readonly reader: VolumeReader;
  private readonly strictReads: StrictReads | undefined;
  private readonly writer: VolumeWriter;
  private closed = false;

  constructor(options: VolumeExportOptions) {
    this.name = options.name;
    this.description = options.description;
    this.sizeBytes = options.sizeBytes;
    this.readOnly = options.readOnly;
    if (options.isLocal !== undefined) this.isLocal = options.isLocal;
    if (options.changesSince !== undefined) this.changesSince = options.changesSince;
    this.options = options;
    this.reader = options.reader;
    this.strictReads = options.strictReads;
    this.writer = options.writer;
  }

  read(offset: number, length: number, slab: Slab, start: number, done: Completion): boolean {
    if (this.strictReads?.wanted === true) {
      return this.strictReads.read(this.reader, offset, length, slab, start, done);
    }
    return this.reader.read(offset, length, slab, start, done);
  }

  write(
    offset: number,
    source: Slab,
    sourceStart: number,
    length: number,
    fua: boolean,
    done: Completion,
  ): boolean {
    return this.writer.write(offset, source, sourceStart, length, fua, done);
  }

  reserveWrite(length: number): WriteSlot | null {
    return this.writer.reserveWrite(length);
  }

  writeReserved(slot: WriteSlot, offset: number, fua: boolean, done: Completion): void {
    this.writer.writeReserved(slot, offset, fua, done);
  }

  cancelReserved(slot: WriteSlot): void {
    this.writer.cancelReserved(slot);
  }

  onRoom(callback: () => void): void {
    this.options.onRoom(callback);
  }

  zero(offset: number, length: number, allocate: boolean, fua: boolean, done: Completion): boolean {
    return this.writer.range(allocate ? entryKind.zeroAllocated : entryKind.zero, offset, length, fua, done);
  }

  trim(offset: number, length: number, fua: boolean, done: Completion): boolean {
    return this.writer.range(entryKind.trim, offset, length, fua, done);
  }

  flush(done: Completion): void {
    this.writer.flush(done);
  }

  cache(offset: number, length: number, done: Completion): void {
    this.reader.cache(offset, length, done);
  }

  blockStatus(offset: number, length: number, runsMax: number): readonly AllocationRun[] {
    return this.reader.blockStatus(offset, length, runsMax);
  }

  endOfInput(alone: boolean): void {
    this.writer.endOfInput(alone);
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    // Requests of a round that ended with the connection go to the log, too.
    this.writer.endOfInput(false);
    this.options.onClose(this);
  }
}
