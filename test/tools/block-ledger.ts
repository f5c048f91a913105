// What a volume may hold: a ledger of every write, zero and trim by when it was issued, acknowledged and made durable.
// Callers: block-checker.ts (IO). Pure; time is a counter of events. A → B: A was acknowledged before B was issued, so A's
// LSN is below B's. Per unit it keeps the operations that may still be what a read finds. A found operation W is wrong
// when some X that must be there covers the same bytes and W → X. What must be there: while running, all acknowledged
// before the read was issued; after a crash, all that survives by the volume's promise, and, as the volume is
// fold(log[1..n]), all acknowledged before the latest operation that is seen was issued (prefix), and the whole of an
// operation that is seen in part.

import { BlockImages, isZero } from "./block-image.ts";
import { type Finding, type Operation, overtaken, type Segment, type Survives } from "./block-operation.ts";
import { RestartCheck } from "./restart-check.ts";

export interface PendingRead {
  readonly from: number;
  readonly to: number;
  readonly issuedAt: number;
}

/** Bytes [from, to) of one unit, as left by one operation. */
interface Fragment {
  readonly operation: Operation;
  readonly from: number;
  readonly to: number;
}

/** What a disk may hold at a point of its past, however it goes on. */
export interface LedgerPoint {
  readonly askedAt: number;
  readonly units: ReadonlyMap<number, readonly Fragment[]>;
}

const pruneAtFragments = 8;

export class BlockLedger {
  readonly sizeBytes: number;
  readonly unitBytes: number;
  readonly survives: Survives;
  /** Parts of units that lost an acknowledged operation which nothing had promised to keep: shows that a crash was real. */
  unpromisedLosses = 0;
  private readonly images: BlockImages;
  private readonly units = new Map<number, Fragment[]>();
  private readonly blank: Operation;
  private readonly reads = new Set<PendingRead>();
  private clock = 0;
  private flushedBefore = 0;
  private sequence = 0;

  constructor(options: { sizeBytes: number; unitBytes: number; tag: bigint; survives: Survives }) {
    this.sizeBytes = options.sizeBytes;
    this.unitBytes = options.unitBytes;
    this.survives = options.survives;
    this.images = new BlockImages(options.tag, options.unitBytes);
    this.blank = {
      sequence: 0,
      kind: "never written",
      from: 0,
      to: options.sizeBytes,
      fua: true,
      issuedAt: 0,
      ackedAt: 0,
    };
  }

  issue(kind: "write" | "zero" | "trim", offset: number, length: number, fua: boolean): Operation {
    this.sequence += 1;
    const operation: Operation = {
      sequence: this.sequence,
      kind,
      from: offset,
      to: offset + length,
      fua,
      issuedAt: ++this.clock,
      ackedAt: Number.POSITIVE_INFINITY,
    };
    this.eachUnit(offset, offset + length, (unit, from, to) => {
      const fragments = this.units.get(unit);
      if (!fragments) this.units.set(unit, [this.blankOf(), { operation, from, to }]);
      else {
        if (fragments.length >= pruneAtFragments) this.prune(fragments);
        fragments.push({ operation, from, to });
      }
    });
    return operation;
  }

  /** The payload of a write: each unit that it touches is stamped with its sequence. */
  payload(operation: Operation): Buffer {
    const bytes = Buffer.allocUnsafe(operation.to - operation.from);
    this.eachUnit(operation.from, operation.to, (unit, from, to) => {
      const at = unit * this.unitBytes + from - operation.from;
      this.images.image(unit, operation.sequence).copy(bytes, at, from, to);
    });
    return bytes;
  }

  acknowledge(operation: Operation): void {
    operation.ackedAt = ++this.clock;
  }

  /** Call when FLUSH is sent; give what it returns to flushed() when it was answered. */
  flushIssued(): number {
    return ++this.clock;
  }

  flushed(issuedAt: number): void {
    this.flushedBefore = Math.max(this.flushedBefore, issuedAt);
  }

  readIssued(offset: number, length: number): PendingRead {
    const read = { from: offset, to: offset + length, issuedAt: ++this.clock };
    this.reads.add(read);
    return read;
  }

  readFailed(read: PendingRead): void {
    this.reads.delete(read);
  }

  /** Judges a read that ran beside writes. */
  readDone(read: PendingRead, data: Buffer): Finding[] {
    const findings: Finding[] = [];
    const must = (operation: Operation): boolean => operation.ackedAt < read.issuedAt;
    this.eachUnit(read.from, read.to, (unit, from, to) => {
      const base = unit * this.unitBytes - read.from;
      for (const segment of this.segmentsOf(unit, from, to, (a, b) => data.subarray(base + a, base + b))) {
        if (segment.matching.some((operation) => !overtaken(operation, segment.candidates, must))) continue;
        const found = data.subarray(base + segment.from, base + segment.to);
        if (this.isMixture(segment, found, must)) continue;
        findings.push(
          this.diagnose(
            segment,
            found,
            from === 0 && to === this.unitBytes ? data.subarray(base, base + to) : found,
          ),
        );
      }
    });
    this.reads.delete(read);
    return findings;
  }

  /** After a restart: feed the whole volume, then finish() judges it and starts the next round from what is there. */
  restartCheck(): RestartCheck {
    this.reads.clear();
    return new RestartCheck(this.unitBytes, {
      survived: (operation) => this.isDurable(operation),
      segments: (unit, bytes) => this.segmentsOf(unit, 0, this.unitBytes, (a, b) => bytes.subarray(a, b)),
      diagnose: (segment, found, unit) => this.diagnose(segment, found, unit),
      settle: (segments) => this.settle(segments),
    });
  }

  /** Call before a point of the running volume is asked for (a snapshot): what it may show is not forgotten from now on. */
  pointAsked(): PendingRead {
    return this.readIssued(0, this.sizeBytes);
  }

  /**
   * Call when the point was answered: it holds all that was acknowledged before it was asked for, nothing that is issued from
   * now on, and it is a prefix. What may be there is remembered, whatever becomes of the disk.
   */
  pointTaken(asked: PendingRead): LedgerPoint {
    const answeredAt = ++this.clock;
    const units = new Map<number, readonly Fragment[]>();
    for (const [unit, fragments] of this.units) {
      units.set(
        unit,
        fragments.filter(({ operation }) => operation.issuedAt < answeredAt),
      );
    }
    this.reads.delete(asked);
    return { askedAt: asked.issuedAt, units };
  }

  /** The same of a point that is read while the load goes on. Feed its bytes, then finish(). */
  pointCheck(asked: PendingRead): RestartCheck {
    return this.takenCheck(this.pointTaken(asked), false);
  }

  /**
   * Judges a disk that shows a point. `isDisk`: it is this ledger's own disk, which went back to it; nothing is under way, and the
   * ledger goes on from what is found.
   */
  takenCheck(point: LedgerPoint, isDisk: boolean): RestartCheck {
    if (isDisk) this.reads.clear();
    return new RestartCheck(this.unitBytes, {
      survived: (operation) => operation.ackedAt < point.askedAt,
      segments: (unit, bytes) =>
        this.segmentsOf(unit, 0, this.unitBytes, (a, b) => bytes.subarray(a, b), point.units),
      diagnose: (segment, found, unit) => this.diagnose(segment, found, unit),
      settle: (segments) => (isDisk ? this.settle(segments) : undefined),
    });
  }

  isDurable(operation: Operation): boolean {
    if (operation.ackedAt === Number.POSITIVE_INFINITY) return false;
    return this.survives === "acknowledged" || operation.fua || operation.ackedAt < this.flushedBefore;
  }

  /** Operations that are remembered, for tests of the pruning. */
  get fragmentCount(): number {
    let count = 0;
    for (const fragments of this.units.values()) count += fragments.length;
    return count;
  }

  private blankOf(): Fragment {
    return { operation: this.blank, from: 0, to: this.unitBytes };
  }

  private eachUnit(from: number, to: number, visit: (unit: number, from: number, to: number) => void): void {
    for (let at = from; at < to; ) {
      const unit = Math.floor(at / this.unitBytes);
      const start = unit * this.unitBytes;
      const end = Math.min(to, start + this.unitBytes);
      visit(unit, at - start, end - start);
      at = end;
    }
  }

  /** Drops what can never be read again: covered by a durable operation that was issued after its acknowledgement. */
  private prune(fragments: Fragment[]): void {
    let oldestRead = Number.POSITIVE_INFINITY;
    for (const read of this.reads) oldestRead = Math.min(oldestRead, read.issuedAt);
    const covers = fragments.filter(
      ({ operation }) => this.isDurable(operation) && operation.ackedAt < oldestRead,
    );
    const kept = fragments.filter(
      (old) =>
        !covers.some(
          (cover) =>
            cover.from <= old.from && cover.to >= old.to && old.operation.ackedAt < cover.operation.issuedAt,
        ),
    );
    fragments.splice(0, fragments.length, ...kept);
  }

  /** Splits [from, to) of a unit where the candidates change, and says which of them the bytes fit. */
  private segmentsOf(
    unit: number,
    from: number,
    to: number,
    slice: (from: number, to: number) => Buffer,
    units: ReadonlyMap<number, readonly Fragment[]> = this.units,
  ): Segment[] {
    const fragments = units.get(unit) ?? [this.blankOf()];
    const cuts = new Set([from, to]);
    for (const fragment of fragments) {
      if (fragment.from > from && fragment.from < to) cuts.add(fragment.from);
      if (fragment.to > from && fragment.to < to) cuts.add(fragment.to);
    }
    const sorted = [...cuts].sort((a, b) => a - b);
    const segments: Segment[] = [];
    for (let index = 0; index + 1 < sorted.length; index += 1) {
      const a = sorted[index] as number;
      const b = sorted[index + 1] as number;
      const candidates = fragments.filter((f) => f.from <= a && f.to >= b).map((f) => f.operation);
      const found = slice(a, b);
      const matching = this.fitting(unit, a, found, candidates);
      const unknown = matching.length === 0 ? { unknown: Buffer.from(found) } : {};
      segments.push({ unit, from: a, to: b, candidates, matching, ...unknown });
    }
    return segments;
  }

  private fitting(unit: number, from: number, found: Buffer, candidates: readonly Operation[]): Operation[] {
    const zero = isZero(found);
    const stamped = from === 0 && found.length >= 32 ? found.readBigUInt64LE(24) : undefined;
    return candidates.filter((operation) => {
      if (operation.kind === "found")
        return found.equals(this.contentOf(operation, unit, from, found.length));
      if (operation.kind !== "write") return zero;
      if (zero && found.length > 16) return false; // an image has no such run of zeros
      if (stamped !== undefined && stamped !== BigInt(operation.sequence)) return false;
      const image = this.images.image(unit, operation.sequence);
      return image.compare(found, 0, found.length, from, from + found.length) === 0;
    });
  }

  /** While writes run, a read may find some bytes of each: then every byte must come from one that is allowed. */
  private isMixture(segment: Segment, found: Buffer, must: (operation: Operation) => boolean): boolean {
    const allowed = segment.candidates.filter((operation) => !overtaken(operation, segment.candidates, must));
    if (allowed.every(must)) return false;
    const explained = new Uint8Array(found.length);
    for (const operation of allowed) {
      const content = this.contentOf(operation, segment.unit, segment.from, found.length);
      for (let at = 0; at < found.length; at += 1) if (found[at] === content[at]) explained[at] = 1;
    }
    return explained.every((byte) => byte === 1);
  }

  /** What the operation left in a unit from `from` on. */
  private contentOf(operation: Operation, unit: number, from: number, length: number): Buffer {
    if (operation.kind === "write") {
      return this.images.image(unit, operation.sequence).subarray(from, from + length);
    }
    if (operation.content === undefined) return Buffer.alloc(length);
    const at = unit * this.unitBytes + from - operation.from;
    return operation.content.subarray(at, at + length);
  }

  private diagnose(segment: Segment, found: Buffer, wholeUnit: Buffer): Finding {
    const offset = segment.unit * this.unitBytes + segment.from;
    const length = segment.to - segment.from;
    const expected = segment.candidates
      .map(
        (op) =>
          `${op.kind} #${op.sequence}${op.ackedAt < Number.POSITIVE_INFINITY ? " acked" : " in flight"}`,
      )
      .slice(-4)
      .join(", ");
    const report = (kind: Finding["kind"], what: string): Finding => {
      return { kind, offset, length, detail: `${what}; may be: ${expected}` };
    };
    const old = segment.matching.at(-1);
    if (old && old.kind !== "never written" && old.kind !== "found")
      return report("stale", `holds overwritten ${old.kind} #${old.sequence}`);
    if (isZero(found)) return report("lost", "reads as zero");
    if (wholeUnit.length !== this.unitBytes) return report("garbage", "part of a unit fits no operation");
    const verdict = this.images.judge(segment.unit, wholeUnit);
    if (verdict.kind === "intact") return report("stale", `holds write #${verdict.sequence}`);
    if (verdict.kind === "torn") {
      return report("torn", `starts as write #${verdict.sequence}, differs from byte ${verdict.differsAt}`);
    }
    if (verdict.kind === "misplaced") {
      return report("misplaced", `belongs to unit ${verdict.unit}, write #${verdict.sequence}`);
    }
    if (verdict.kind === "foreign")
      return report("foreign", `belongs to volume tag ${verdict.tag.toString(16)}`);
    return report("garbage", "has no block header");
  }

  /** What was found is the new ground: durable, because a server may serve only what it has synced. */
  private settle(segments: readonly Segment[]): void {
    const now = ++this.clock;
    const settled = new Map<Operation, Operation>();
    const next = new Map<number, Fragment[]>();
    for (const segment of segments) {
      const winner = segment.matching.at(-1) ?? this.foundIn(segment);
      const anyAcknowledged = (operation: Operation): boolean => operation.ackedAt < Number.POSITIVE_INFINITY;
      if (overtaken(winner, segment.candidates, anyAcknowledged)) this.unpromisedLosses += 1;
      let operation = settled.get(winner);
      if (!operation) {
        operation = { ...winner, fua: true, issuedAt: now, ackedAt: now };
        settled.set(winner, operation);
      }
      const fragments = next.get(segment.unit) ?? [];
      if (fragments.length === 0) next.set(segment.unit, fragments);
      fragments.push({ operation, from: segment.from, to: segment.to });
    }
    this.units.clear();
    for (const [unit, fragments] of next) this.units.set(unit, fragments);
  }

  private foundIn({ unit, from, to, unknown }: Segment): Operation {
    const start = unit * this.unitBytes;
    const range = { from: start + from, to: start + to };
    return { ...this.blank, ...range, kind: "found", ...(unknown === undefined ? {} : { content: unknown }) };
  }
}
