/*
 * One simulated client of a volume: talks to a BlockExport as an NBD connection does, in rounds of requests, some of them
 * received in pieces, waiting where it is told to wait. Every answer is judged on the spot by the oracle.
 * Owned by life.ts; next on data's way: services/gateway/engine/volume-export.ts.
 */
import type { VarveError } from "#shared/domain/errors.ts";
import type { BlockExport, Completion, WriteSlot } from "#shared/ports/block-export.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { PrefixOracle } from "./oracle.ts";
import type { Scheduler, SeededRandom } from "./scheduler.ts";

/** What a client tells of its requests, and asks for. */
export type ClientOracle = Pick<
  PrefixOracle,
  "submit" | "acknowledge" | "refuse" | "promise" | "submitted" | "answeredPrefix" | "judgeRead"
>;

/** What a client needs of the life that it lives in. */
export interface ClientHost {
  readonly oracle: ClientOracle;
  readonly scheduler: Scheduler;
  readonly durability: "write" | "flush";
  readonly halted: boolean;
  openExport(): BlockExport;
  fail(what: string): void;
  note(what: string): void;
  /** An operation was answered with an error: may that be? Says also whether it surely never happened. */
  judgeError(what: string, error: VarveError): { readonly refused: boolean };
  readMayFail(): boolean;
}

export interface ClientProfile {
  readonly depthMax: number;
  readonly roundMax: number;
  readonly writeBytesMax: number;
  /** Payloads above this are received in pieces, parts of this many bytes at most. */
  readonly partBytesMax: number;
  readonly pauseMs: number;
  /** Offsets are multiples of it; 1 for bytes anywhere. */
  readonly alignBytes: number;
  /** Only here requests begin and end; null for the whole disk. */
  readonly regions: readonly { readonly offset: number; readonly length: number }[] | null;
  readonly weights: Readonly<Record<RequestKind, number>>;
}

export type RequestKind =
  | "write"
  | "received"
  | "zero"
  | "zeroAllocated"
  | "trim"
  | "flush"
  | "read"
  | "status"
  | "cache"
  | "reopen";

/** Random bytes of which every write takes a part, so that misplaced bytes show. The same for all seeds. */
const patternBytes = 1 << 20;
const pattern: Uint8Array = new Uint8Array(patternBytes);
for (let index = 0, word = 1; index < patternBytes; index++) {
  word = (Math.imul(word, 1103515245) + 12345) >>> 0;
  // Never zero: a lost write is then told from a hole.
  pattern[index] = ((word >>> 16) % 255) + 1;
}

interface Receiving {
  readonly slot: WriteSlot;
  readonly bytes: Uint8Array;
  readonly offset: number;
  readonly fua: boolean;
  filled: number;
}

interface Part {
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly fua: boolean;
}

export class SimulatedClient {
  readonly name: string;
  private readonly host: ClientHost;
  private readonly profile: ClientProfile;
  private readonly random: SeededRandom;
  private readonly memory: Slab;
  private opened: BlockExport | null = null;
  private readonly outstanding = new Set<string>();
  private requestCount = 0;
  /** What had to wait for memory; true once it was taken. */
  private blocked: (() => boolean) | null = null;
  private receiving: Receiving | null = null;
  private parts: Part[] = [];
  private turnScheduled = false;
  private stopping = false;

  constructor(name: string, host: ClientHost, profile: ClientProfile, random: SeededRandom, memory: Slab) {
    this.name = name;
    this.host = host;
    this.profile = profile;
    this.random = random;
    this.memory = memory;
  }

  start(): void {
    this.opened = this.host.openExport();
    this.scheduleTurn();
  }

  /** Issues nothing new; what is half received is finished or given up. */
  stop(): void {
    this.stopping = true;
    if (this.receiving !== null && this.random.chance(0.5)) this.giveUpReceiving();
    this.parts = [];
    this.scheduleTurn();
  }

  disconnect(): void {
    this.stopping = true;
    this.giveUpReceiving();
    this.parts = [];
    this.blocked = null;
    this.opened?.close();
    this.opened = null;
  }

  get idle(): boolean {
    return this.outstanding.size === 0 && this.blocked === null && this.receiving === null;
  }

  get unanswered(): number {
    return this.outstanding.size;
  }

  describeWait(): string {
    const waits = [...this.outstanding];
    if (this.blocked !== null) waits.push("payload memory");
    if (this.receiving !== null) waits.push("its own payload");
    return `${this.name} (${waits.join(", ")})`;
  }

  private scheduleTurn(): void {
    if (this.turnScheduled) return;
    this.turnScheduled = true;
    const pauseMs = this.random.chance(0.3) ? 0 : this.random.next() * this.profile.pauseMs;
    this.host.scheduler.after(pauseMs, () => {
      this.turnScheduled = false;
      this.turn();
    });
  }

  /** One round of input, as a connection handles what one read of its socket brought. */
  private turn(): void {
    const { opened } = this;
    if (opened === null || this.blocked !== null) return;
    const rounds = this.random.integer(1, this.profile.roundMax + 1);
    for (let count = 0; count < rounds; count++) {
      if (this.receiving !== null) {
        this.receivePiece(this.receiving);
        break;
      }
      if (this.stopping || this.opened === null || this.outstanding.size >= this.profile.depthMax) break;
      if (!this.attempt(this.nextRequest())) break;
    }
    this.opened?.endOfInput(this.random.chance(0.5));
    const more = !this.stopping && this.outstanding.size < this.profile.depthMax;
    if (this.blocked === null && (more || this.receiving !== null)) this.scheduleTurn();
  }

  private attempt(request: () => boolean): boolean {
    if (request()) return true;
    this.host.note(`${this.name} waits for memory`);
    this.blocked = request;
    const { opened } = this;
    opened?.onRoom(() => {
      if (this.opened !== opened || this.blocked !== request) return;
      this.blocked = null;
      if (this.attempt(request)) {
        opened.endOfInput(false);
        this.scheduleTurn();
      }
    });
    return false;
  }

  private nextRequest(): () => boolean {
    const part = this.parts.shift();
    if (part !== undefined) return () => this.receive(part);
    const kind = this.random.weighted(this.profile.weights);
    const fua = this.random.chance(0.1);
    switch (kind) {
      case "write": {
        const { offset, bytes } = this.payload(this.profile.writeBytesMax);
        return () => this.write(offset, bytes, fua);
      }
      case "received":
        return this.receiveLarge(fua);
      case "zero":
      case "zeroAllocated":
      case "trim": {
        const { offset, length } = this.range();
        return () => this.zero(kind, offset, length, fua);
      }
      case "flush":
        return () => this.flush();
      case "read": {
        const { offset, length } = this.range();
        return () => this.read(offset, Math.min(length, this.memory.bytes.byteLength));
      }
      case "status": {
        const { offset, length } = this.range();
        return () => this.status(offset, length);
      }
      case "cache":
        return () => this.cache();
      case "reopen":
        return () => this.reopen();
      default:
        throw new TypeError(kind satisfies never);
    }
  }

  private get sizeBytes(): number {
    return this.opened?.sizeBytes ?? 0;
  }

  private range(): { offset: number; length: number } {
    const place = this.place();
    const align = this.profile.alignBytes;
    const lengthMax = this.random.chance(0.05) ? place.length : Math.min(place.length, 32 * 1024);
    const length = Math.max(1, Math.floor(this.random.integer(1, lengthMax + 1) / align) * align);
    return { offset: this.offsetIn(place, length), length };
  }

  /** The whole disk, or the part of a region that lies on it. */
  private place(): { offset: number; length: number } {
    const { sizeBytes } = this;
    const { regions } = this.profile;
    if (regions === null || this.random.chance(0.02)) return { offset: 0, length: sizeBytes };
    const { offset, length } = this.random.pick(regions);
    if (offset >= sizeBytes) return { offset: 0, length: Math.min(sizeBytes, length) };
    return { offset, length: Math.min(length, sizeBytes - offset) };
  }

  private offsetIn(place: { offset: number; length: number }, length: number): number {
    const align = this.profile.alignBytes;
    const offset = place.offset + this.random.integer(0, place.length - length + 1);
    return Math.floor(offset / align) * align;
  }

  private payload(bytesMax: number): { offset: number; bytes: Uint8Array } {
    const place = this.place();
    const align = this.profile.alignBytes;
    const most = Math.min(place.length, bytesMax);
    const wanted = this.random.chance(0.7) ? Math.min(most, 4096) : most;
    const length = Math.max(1, Math.floor(this.random.integer(1, wanted + 1) / align) * align);
    const offset = this.offsetIn(place, length);
    const start = this.random.integer(0, patternBytes - length);
    return { offset, bytes: pattern.subarray(start, start + length) };
  }

  private write(offset: number, bytes: Uint8Array, fua: boolean): boolean {
    const { opened } = this;
    if (opened === null) return true;
    this.memory.bytes.set(bytes);
    const request = new ChangeRequest(this, this.nextName("write", offset, bytes.length, fua), fua);
    if (!opened.write(offset, this.memory, 0, bytes.length, fua, request)) return false;
    // The caller's memory is its own again: a write that is not copied yet would show it.
    this.memory.bytes.fill(0xee, 0, bytes.length);
    this.taken(request, this.host.oracle.submit({ kind: "write", offset, bytes }));
    return true;
  }

  /** A large request: received part after part, each an entry of its own. */
  private receiveLarge(fua: boolean): () => boolean {
    const { offset, bytes } = this.payload(4 * this.profile.partBytesMax);
    for (let start = 0; start < bytes.length; start += this.profile.partBytesMax) {
      const part = bytes.subarray(start, start + this.profile.partBytesMax);
      this.parts.push({ offset: offset + start, bytes: part, fua });
    }
    const first = this.parts.shift() as Part;
    return () => this.receive(first);
  }

  private receive(part: Part): boolean {
    const slot = this.opened?.reserveWrite(part.bytes.length);
    if (slot === undefined) return true;
    if (slot === null) return false;
    this.receiving = { slot, bytes: part.bytes, offset: part.offset, fua: part.fua, filled: 0 };
    return true;
  }

  private receivePiece(receiving: Receiving): void {
    const { slot, bytes } = receiving;
    const left = bytes.length - receiving.filled;
    const length = this.random.chance(0.4) ? left : this.random.integer(1, left + 1);
    slot.slab.bytes.set(
      bytes.subarray(receiving.filled, receiving.filled + length),
      slot.start + receiving.filled,
    );
    receiving.filled += length;
    if (receiving.filled < bytes.length) return;
    this.receiving = null;
    const { opened } = this;
    if (opened === null) return;
    const name = this.nextName("received write", receiving.offset, bytes.length, receiving.fua);
    const request = new ChangeRequest(this, name, receiving.fua);
    this.taken(request, this.host.oracle.submit({ kind: "write", offset: receiving.offset, bytes }));
    opened.writeReserved(slot, receiving.offset, receiving.fua, request);
  }

  private giveUpReceiving(): void {
    if (this.receiving === null) return;
    this.opened?.cancelReserved(this.receiving.slot);
    this.receiving = null;
    this.parts = [];
  }

  private zero(
    kind: "zero" | "zeroAllocated" | "trim",
    offset: number,
    length: number,
    fua: boolean,
  ): boolean {
    const { opened } = this;
    if (opened === null) return true;
    const request = new ChangeRequest(this, this.nextName(kind, offset, length, fua), fua);
    const taken =
      kind === "trim"
        ? opened.trim(offset, length, fua, request)
        : opened.zero(offset, length, kind === "zeroAllocated", fua, request);
    if (taken) this.taken(request, this.host.oracle.submit({ kind: "zero", offset, length }));
    return taken;
  }

  private flush(): boolean {
    const { oracle } = this.host;
    const covered = oracle.answeredPrefix;
    const name = this.nextName("flush", 0, 0, false);
    this.outstanding.add(name);
    this.opened?.flush(
      this.once(name, (error) => {
        if (error === null) oracle.promise(covered);
        else this.host.judgeError(name, error);
      }),
    );
    return true;
  }

  private cache(): boolean {
    const name = this.nextName("cache", 0, 0, false);
    this.outstanding.add(name);
    this.opened?.cache(
      0,
      1,
      this.once(name, (error) => {
        if (error !== null) this.host.judgeError(name, error);
      }),
    );
    return true;
  }

  private read(offset: number, length: number): boolean {
    const { opened, host } = this;
    if (opened === null) return true;
    const from = host.oracle.answeredPrefix;
    const name = this.nextName("read", offset, length, false);
    // Reads of one client may overlap, so each has memory of its own.
    const memory: Slab = { bytes: Buffer.alloc(length, 0xaa), address: 0 };
    const judge = (): void => {
      const why = host.oracle.judgeRead(offset, memory.bytes, from, this.visibleEnd());
      if (why !== "") host.fail(`${name}: ${why}`);
    };
    this.outstanding.add(name);
    const done = this.once(name, (error) => {
      if (error === null) judge();
      else if (!host.readMayFail()) host.fail(`${name} failed without a cause: ${error.message}`);
    });
    if (opened.read(offset, length, memory, 0, done)) {
      this.outstanding.delete(name);
      judge();
    }
    return true;
  }

  /**
   * Operations that a read may show now: in a `write` volume the answered ones alone (what may still fail is never shown), in a
   * `flush` volume also a FUA write that is stored and not yet durable; after a halt also what was answered with an error and
   * may have reached the log.
   */
  private visibleEnd(): number {
    const { oracle, durability, halted } = this.host;
    return durability === "write" && !halted ? oracle.answeredPrefix : oracle.submitted;
  }

  private status(offset: number, length: number): boolean {
    const { opened, host } = this;
    if (opened === null) return true;
    const runsMax = this.random.integer(1, 8);
    const name = this.nextName("status", offset, length, false);
    let at = offset;
    const runs = opened.blockStatus(offset, length, runsMax);
    for (const run of runs) {
      if (run.offset !== at || run.length <= 0) host.fail(`${name}: runs have a gap at ${at}`);
      at = run.offset + run.length;
      if (run.allocated) continue;
      const zeroes = new Uint8Array(Math.min(at, offset + length) - run.offset);
      const why = host.oracle.judgeRead(run.offset, zeroes, host.oracle.answeredPrefix, this.visibleEnd());
      if (why !== "") host.fail(`${name}: reported as unallocated, but ${why}`);
    }
    if (runs.length === 0 || runs.length > runsMax) host.fail(`${name}: ${runs.length} runs of ${runsMax}`);
    if (at > offset + length) host.fail(`${name}: runs reach to ${at}`);
    return true;
  }

  private reopen(): boolean {
    this.opened?.close();
    this.opened = null;
    this.host.scheduler.after(this.random.next() * 5, () => {
      if (this.stopping) return;
      this.opened = this.host.openExport();
      this.scheduleTurn();
    });
    return true;
  }

  private nextName(kind: string, offset: number, length: number, fua: boolean): string {
    this.requestCount += 1;
    const name = `${this.name}.${this.requestCount} ${kind} [${offset}, ${offset + length})${fua ? " fua" : ""}`;
    this.host.note(name);
    return name;
  }

  private taken(request: ChangeRequest, index: number): void {
    request.index = index;
    this.outstanding.add(request.name);
  }

  private once(name: string, then: (error: VarveError | null) => void): Completion {
    return {
      complete: (error) => {
        this.ended(name, error);
        then(error);
      },
    };
  }

  /** A change was answered. */
  changed(request: ChangeRequest, error: VarveError | null): void {
    this.ended(request.name, error);
    const { oracle, durability } = this.host;
    if (error === null) {
      oracle.acknowledge(request.index);
      if (durability === "write" || request.fua) oracle.promise(request.index + 1);
    } else if (this.host.judgeError(request.name, error).refused) {
      oracle.refuse(request.index);
    }
  }

  private ended(name: string, error: VarveError | null): void {
    this.host.note(`${name} → ${error === null ? "done" : `${error._tag} ${error.kind}`}`);
    if (!this.outstanding.delete(name)) this.host.fail(`${name} was answered twice, or from inside its call`);
    if (this.blocked === null && !this.stopping) this.scheduleTurn();
  }
}

class ChangeRequest implements Completion {
  readonly name: string;
  readonly fua: boolean;
  index = -1;
  private readonly client: SimulatedClient;

  constructor(client: SimulatedClient, name: string, fua: boolean) {
    this.client = client;
    this.name = name;
    this.fua = fua;
  }

  complete(error: VarveError | null): void {
    this.client.changed(this, error);
  }
}
