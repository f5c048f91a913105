/*
 * What an NBD connection sees of a volume: the port between the protocol (services/gateway/engine/nbd-*) and the volume
 * session behind it. Built so that the hot path allocates nothing per request: completions are reused objects, reads and
 * writes go through slabs. All calls on the event loop's thread.
 *
 * Ranges are checked by the connection against sizeBytes before a call (it owns the protocol's errno rules).
 */

import type { VarveError } from "#shared/domain/errors.ts";
import type { ByteRange } from "./history.ts";
import type { AllocationRun } from "./replica-image.ts";
import type { Slab } from "./slab.ts";

/** Told once when a request is finished; `error` null means success. A request object of the connection implements it. */
export interface Completion {
  complete(error: VarveError | null): void;
}

/** A payload's own memory, for payloads that arrive in pieces: fill bytes [start, start + length) of the slab, then submit. */
export interface WriteSlot {
  readonly slab: Slab;
  readonly start: number;
  readonly length: number;
}

export interface BlockExport {
  readonly name: string;
  readonly description: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** Preferred block size, bytes. The minimum is 1, the maximum payload limits.nbdPayloadBytesMax. */
  readonly preferredBlockBytes: number;

  /**
   * Reads into the slab. True: done on the spot (page cache, overlay, hole); `done` is not called. False: `done` is called
   * later, never from inside this call.
   */
  read(offset: number, length: number, slab: Slab, start: number, done: Completion): boolean;

  /**
   * A write whose whole payload stands in the caller's memory: copied before the call returns. Returns false, with nothing
   * done, where payload memory is used up: stop reading requests and try again when onRoom's callback comes.
   */
  write(
    offset: number,
    source: Slab,
    sourceStart: number,
    length: number,
    fua: boolean,
    done: Completion,
  ): boolean;
  /** Memory for the first part (slot.length) of a payload of `length` that arrives in pieces; null where memory is used up. */
  reserveWrite(length: number): WriteSlot | null;
  /** Submits a filled slot as a write at `offset`. Takes the slot over. */
  writeReserved(slot: WriteSlot, offset: number, fua: boolean, done: Completion): void;
  /** Gives a slot back unused (the client went away in the middle). */
  cancelReserved(slot: WriteSlot): void;
  /** Calls back once when payload memory may be available again. */
  onRoom(callback: () => void): void;

  /** False as in write(). `allocate`: NO_HOLE. Always quick, whatever the length. */
  zero(offset: number, length: number, allocate: boolean, fua: boolean, done: Completion): boolean;
  trim(offset: number, length: number, fua: boolean, done: Completion): boolean;
  /** Done when every write acknowledged before the call, on any connection, is durable. */
  flush(done: Completion): void;
  /** Makes the range local and warm; no effect on data. */
  cache(offset: number, length: number, done: Completion): void;
  /** Maximal allocation runs that start at `offset`, at most `runsMax`, covering at most `length`; at least one. */
  blockStatus(offset: number, length: number, runsMax: number): readonly AllocationRun[];

  /** Whether every byte of an extent (limits.extentBytes) is on this machine. Not there where all always are. */
  isLocal?(extent: number): boolean;

  /**
   * Where the export, as it is at the call, may differ from an earlier (or later) point of its volume: ascending, merged. Not there
   * for exports without a past. Rejects Invalid where the point does not open.
   */
  changesSince?(point: string): Promise<readonly ByteRange[]>;

  /**
   * The connection has handed over all requests of one round of input: queued writes may go to the log now. `alone`: this
   * connection knows of no other work in the process, so a short blocking write on this thread is allowed.
   */
  endOfInput(alone: boolean): void;
  close(): void;
}

/** What the NBD listener asks for exports. */
export interface ExportDirectory {
  /** Names that this client may see, sorted. */
  list(): readonly { readonly name: string; readonly description: string }[];
  /** Opens an export for one connection, or says why not: null = unknown name. Rejects with VarveError where it can't be served now. */
  open(name: string): Promise<BlockExport | null>;
}
