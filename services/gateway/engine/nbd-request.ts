/*
 * One request in flight: a reused object that the export tells when it is done. nbd-transmission.ts takes it from its pool,
 * fills it from the header, and gets it back by finished(); a request whose work is in several parts (a long write, a large
 * read) counts them down here. Also the pool.
 */
import type { VarveError } from "#shared/domain/errors.ts";
import { RequestHeader } from "#shared/formats/nbd-transmission.ts";
import type { Completion } from "#shared/ports/block-export.ts";
import type { ReplySlab } from "./nbd-reply-memory.ts";

export interface RequestOwner {
  /** Every part of the request is done; request.error says how. */
  finished(request: NbdRequest): void;
}

/** What a request's completion leads to. */
export const requestRole = {
  /** A reply of its own, by its command. */
  whole: 0,
  /** One chunk of the large read `parent`. */
  chunk: 1,
  /** A large read answered by one piece of data: parts stand in partSlabs. */
  gathered: 2,
  /** A large read answered by chunks; its own completion sends nothing. */
  streamed: 3,
} as const;

export class NbdRequest extends RequestHeader implements Completion {
  role: (typeof requestRole)[keyof typeof requestRole] = requestRole.whole;
  /** Parts that are not done; the last one calls finished(). */
  pending = 0;
  error: VarveError | null = null;
  /** Where a read's reply stands: header at `start`, data behind it. */
  slab: ReplySlab | null = null;
  start = 0;
  parent: NbdRequest | null = null;
  /** A gathered read's data, in order. */
  readonly partSlabs: ReplySlab[] = [];
  readonly partStarts: number[] = [];
  readonly partLengths: number[] = [];
  private readonly owner: RequestOwner;

  constructor(owner: RequestOwner) {
    super();
    this.owner = owner;
  }

  complete(error: VarveError | null): void {
    if (error !== null && this.error === null) this.error = error;
    this.pending -= 1;
    if (this.pending === 0) this.owner.finished(this);
  }

  /** Takes the header over from the parser's object. */
  begin(header: Readonly<RequestHeader>): void {
    this.flags = header.flags;
    this.type = header.type;
    this.cookieHigh = header.cookieHigh;
    this.cookieLow = header.cookieLow;
    this.offsetHigh = header.offsetHigh;
    this.offsetLow = header.offsetLow;
    this.offset = header.offset;
    this.length = header.length;
    this.role = requestRole.whole;
    this.pending = 1;
    this.error = null;
    this.slab = null;
    this.parent = null;
  }

  clearParts(): void {
    this.partSlabs.length = 0;
    this.partStarts.length = 0;
    this.partLengths.length = 0;
  }
}

/** Request objects of one connection: free ones, grown to what was once in flight, and the count of those in flight. */
export class RequestPool {
  inFlight = 0;
  private readonly owner: RequestOwner;
  private readonly countInFlight: (change: number) => void;
  private readonly free: NbdRequest[] = [];

  /** `countInFlight` is told of each change, for the server's own count. */
  constructor(owner: RequestOwner, countInFlight: (change: number) => void) {
    this.owner = owner;
    this.countInFlight = countInFlight;
  }

  /** A request with one part, not counted yet: a read may be done on the spot, a chunk belongs to a counted read. */
  take(header: Readonly<RequestHeader>): NbdRequest {
    const request = this.free.pop() ?? new NbdRequest(this.owner);
    request.begin(header);
    return request;
  }

  give(request: NbdRequest): void {
    request.slab = null;
    request.parent = null;
    request.error = null;
    this.free.push(request);
  }

  /** A request that is in flight until retire(). */
  start(header: Readonly<RequestHeader>): NbdRequest {
    this.count(1);
    return this.take(header);
  }

  retire(request: NbdRequest): void {
    this.count(-1);
    this.give(request);
  }

  count(change: number): void {
    this.inFlight += change;
    this.countInFlight(change);
  }
}
