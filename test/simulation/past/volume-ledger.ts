/*
 * The truth about one volume of a history world: every entry of its log in LSN order, with the bytes that its clients sent, so
 * that the disk at any LSN can be folded without a line of Varve's code. Entries are taken from the log as it becomes durable,
 * contents only from the clients; the two must agree. Filled by past-process.ts, asked by everything that judges.
 */
import type { BatchDraft } from "#shared/domain/batch-draft.ts";
import { limits } from "#shared/domain/limits.ts";
import type { LoggedBatch } from "#shared/ports/history.ts";
import type { ClientOracle } from "../client.ts";
import {
  applyPart,
  applyTo,
  type Bytes,
  lengthOf,
  type OracleOperation,
  PrefixOracle,
  resized,
} from "../oracle.ts";

type LedgerEntry = OracleOperation | { readonly kind: "rebase"; readonly toLsn: number };

/** An operation of this session that no log entry was seen of yet. */
interface Awaited {
  readonly index: number;
  readonly operation: OracleOperation;
  state: "asked" | "refused" | "passed over";
}

/** An entry as a log has it, whatever form its batch has. */
interface SeenEntry {
  readonly kind: string;
  readonly offset: number;
  readonly length: number;
  readonly value: string | number;
  readonly bytes: Uint8Array;
}

export interface LedgerBeginning {
  readonly sizeBytes: number;
  /** The parent's point that the fold begins with. */
  readonly origin: { readonly ledger: VolumeLedger; readonly lsn: number } | null;
}

export class VolumeLedger {
  readonly id: string;
  readonly name: string;
  readonly begin: LedgerBeginning;
  /** The line, once its log was opened. */
  line: string | null = null;
  epoch = 0;
  private readonly entries: LedgerEntry[] = [];
  /** Simulated time at which each was seen to be durable. */
  private readonly times: number[] = [];
  private session: PrefixOracle;
  private awaited: Awaited[] = [];
  private readonly fail: (what: string) => void;
  /** Rollbacks that were asked for and not seen yet. */
  readonly askedRebases = new Set<number>();
  /** Name to LSN, of those that were answered and not deleted. */
  readonly snapshots = new Map<string, number>();
  deleted = false;
  /** Its creation was answered: it is there from now on. */
  made = false;
  /** The greatest LSN that was said to be held. */
  heldLsn = 0;
  /** Its deletion, or its coming back, was under way when the process died: it may be there or not. */
  unsure = false;

  constructor(id: string, name: string, begin: LedgerBeginning, fail: (what: string) => void) {
    this.id = id;
    this.name = name;
    this.begin = begin;
    this.fail = (what) => fail(`${name}: ${what}`);
    this.session = new PrefixOracle(0, this.contentAt(0));
  }

  get lastLsn(): number {
    return this.entries.length;
  }

  timeOf(lsn: number): number {
    return this.times[lsn - 1] ?? 0;
  }

  /** What this session's clients tell of their requests. */
  readonly clients: ClientOracle = new SessionClients(this);

  submit(operation: OracleOperation): number {
    const index = this.session.submit(operation);
    if (operation.kind !== "nothing") this.awaited.push({ index, operation, state: "asked" });
    return index;
  }

  acknowledge(index: number): void {
    if (this.awaited.some((one) => one.index === index && one.state === "passed over")) {
      this.fail(`operation ${index} was answered, but the log went on without it`);
    }
    this.session.acknowledge(index);
  }

  refuse(index: number): void {
    this.session.refuse(index);
    for (const one of this.awaited) if (one.index === index) one.state = "refused";
  }

  /** The operations of the session that is open. */
  get operations(): PrefixOracle {
    return this.session;
  }

  /** Everything was answered, and the disk is another one now (a resize, a rollback), or a new session begins. */
  beginSession(): void {
    this.awaited = [];
    this.session = new PrefixOracle(0, this.contentAt(this.lastLsn));
  }

  /**
   * The log was opened again; what it has past lastLsn was taken. Operations that were promised (or, where only the process
   * died, answered) must have been among it.
   */
  judgeReopened(answeredMustBeThere: boolean, foundLsn: number): void {
    if (foundLsn < this.lastLsn) {
      this.fail(`the log ends at LSN ${foundLsn}, but LSN ${this.lastLsn} was durable`);
    }
    const required = answeredMustBeThere ? this.session.answeredPrefix : this.session.promisedPrefix;
    const lost = this.awaited.find((one) => one.state === "asked" && one.index < required);
    if (lost !== undefined) {
      this.fail(`${lost.operation.kind} #${lost.index} of ${required} required ones is not in the log`);
    }
  }

  noteHeld(lsn: number): void {
    this.heldLsn = Math.max(this.heldLsn, lsn);
  }

  /** The machine is lost; what comes back ends at `lsn`. */
  cutTo(lsn: number): void {
    this.entries.length = Math.min(this.entries.length, lsn);
    this.times.length = this.entries.length;
    // Names reach the bucket a manifest later.
    this.snapshots.clear();
    this.askedRebases.clear();
    this.beginSession();
  }

  takeDraft(draft: BatchDraft, nowMs: number): void {
    if (draft.lastLsn <= this.lastLsn) return;
    if (draft.firstLsn !== this.lastLsn + 1) {
      this.fail(`LSN ${draft.firstLsn} became durable after ${this.lastLsn}`);
      return;
    }
    for (let index = 0; index < draft.entryCount; index++) {
      const length = draft.lengths[index] ?? 0;
      const start = limits.batchHeaderBytesMax + (draft.payloadStarts[index] ?? 0);
      this.take(
        {
          kind: kindNames[draft.kinds[index] ?? 0] ?? "",
          offset: draft.offsets[index] ?? 0,
          length,
          value: draft.values.get(index) ?? 0,
          bytes: draft.slab.bytes.subarray(start, start + length),
        },
        nowMs,
      );
    }
  }

  takeLogged(batch: LoggedBatch, nowMs: number): void {
    for (const [index, entry] of batch.entries.entries()) {
      const lsn = batch.firstLsn + index;
      if (lsn <= this.lastLsn) continue;
      if (lsn !== this.lastLsn + 1) {
        this.fail(`the log goes on with LSN ${lsn} after ${this.lastLsn}`);
        return;
      }
      const bytes =
        entry.kind === "write"
          ? batch.payload.subarray(entry.payloadStart, entry.payloadStart + entry.length)
          : noBytes;
      const place = "offset" in entry ? entry : { offset: 0, length: 0 };
      const isZero = entry.kind === "zeroAllocated" || entry.kind === "trim";
      const value = entry.kind === "resize" ? entry.sizeBytes : entry.kind === "rebase" ? entry.lsn : 0;
      this.take(
        { kind: isZero ? "zero" : entry.kind, offset: place.offset, length: place.length, value, bytes },
        nowMs,
      );
    }
  }

  /** The disk as it was at an LSN. */
  contentAt(lsn: number): Bytes {
    const from = this.lastRebaseAt(lsn);
    let state = from > 0 ? this.rebased(from) : this.beginning();
    for (let at = from + 1; at <= lsn; at++) state = this.step(state, at);
    return state;
  }

  /** A part of the disk as it was at an LSN, without making all of it. */
  partAt(lsn: number, offset: number, length: number): Bytes {
    const from = this.lastRebaseAt(lsn);
    const rebase = this.entries[from - 1];
    let part: Bytes;
    if (rebase?.kind === "rebase") part = this.partAt(rebase.toLsn, offset, length);
    else {
      const { origin } = this.begin;
      part = origin === null ? new Uint8Array(length) : origin.ledger.partAt(origin.lsn, offset, length);
    }
    for (const entry of this.entries.slice(from, lsn)) {
      if (entry.kind !== "rebase") applyPart(part, offset, entry);
    }
    return part;
  }

  sizeAt(lsn: number): number {
    for (let at = lsn; at > 0; at--) {
      const entry = this.entries[at - 1];
      if (entry?.kind === "resize") return entry.sizeBytes;
      if (entry?.kind === "rebase") return this.sizeAt(entry.toLsn);
    }
    return this.begin.sizeBytes;
  }

  private lastRebaseAt(lsn: number): number {
    let from = lsn;
    while (from > 0 && this.entries[from - 1]?.kind !== "rebase") from -= 1;
    return from;
  }

  /** The disk at `lsn` from the one at `lsn - 1`, which it may change or take over. */
  step(before: Bytes, lsn: number): Bytes {
    const entry = this.entries[lsn - 1];
    if (entry === undefined) throw new RangeError(`LSN ${lsn} of ${this.name} is not known`);
    if (entry.kind === "rebase") return this.rebased(lsn);
    if (entry.kind === "resize") return resized(before, entry.sizeBytes);
    if (entry.kind !== "nothing") applyTo(before, entry);
    return before;
  }

  private rebased(lsn: number): Bytes {
    const entry = this.entries[lsn - 1];
    if (entry?.kind !== "rebase") throw new RangeError(`LSN ${lsn} is no rebase`);
    return this.contentAt(entry.toLsn);
  }

  private beginning(): Bytes {
    const { origin, sizeBytes } = this.begin;
    if (origin === null) return new Uint8Array(sizeBytes);
    const content = origin.ledger.contentAt(origin.lsn);
    return content.length === sizeBytes ? content : resized(content, sizeBytes);
  }

  private take(seen: SeenEntry, nowMs: number): void {
    this.times.push(nowMs);
    this.entries.push(this.entryOf(seen));
  }

  private entryOf(seen: SeenEntry): LedgerEntry {
    switch (seen.kind) {
      case "resize":
        // Clients that come back see the new size.
        this.session.submit({ kind: "resize", sizeBytes: Number(seen.value) });
        return { kind: "resize", sizeBytes: Number(seen.value) };
      case "rebase": {
        const toLsn = Number(seen.value);
        if (!this.askedRebases.delete(toLsn))
          this.fail(`LSN ${this.lastLsn + 1} rolls back to ${toLsn}, unasked`);
        return { kind: "rebase", toLsn };
      }
      case "write":
      case "zero":
        return this.match(seen);
      default:
        return { kind: "nothing" };
    }
  }

  /** The oldest operation that this entry can be; those before it were refused, or will be. */
  private match(seen: SeenEntry): OracleOperation {
    for (const [position, one] of this.awaited.entries()) {
      if (one.state !== "asked" || !isSame(one.operation, seen)) continue;
      const passed = this.awaited.slice(0, position).filter((before) => before.state === "asked");
      for (const before of passed) before.state = "passed over";
      this.awaited = [...this.awaited.slice(0, position), ...this.awaited.slice(position + 1)].filter(
        (left) => left.state !== "refused",
      );
      return one.operation;
    }
    this.fail(
      `LSN ${this.lastLsn + 1} is a ${seen.kind} of [${seen.offset}, ${seen.offset + seen.length}) that nobody asked for`,
    );
    return { kind: "nothing" };
  }
}

class SessionClients implements ClientOracle {
  private readonly ledger: VolumeLedger;

  constructor(ledger: VolumeLedger) {
    this.ledger = ledger;
  }

  submit(operation: OracleOperation): number {
    return this.ledger.submit(operation);
  }

  acknowledge(index: number): void {
    this.ledger.acknowledge(index);
  }

  refuse(index: number): void {
    this.ledger.refuse(index);
  }

  promise(end: number): void {
    this.ledger.operations.promise(end);
  }

  get submitted(): number {
    return this.ledger.operations.submitted;
  }

  get answeredPrefix(): number {
    return this.ledger.operations.answeredPrefix;
  }

  judgeRead(offset: number, bytes: Uint8Array, from: number, to: number): string {
    return this.ledger.operations.judgeRead(offset, bytes, from, to);
  }
}

const noBytes = new Uint8Array(0);
/** By entry number; every way of zeroing is one to a fold. */
const kindNames = ["write", "zero", "zero", "zero", "epoch", "mark", "resize", "rebase"];

function isSame(operation: OracleOperation, seen: SeenEntry): boolean {
  if (operation.kind !== seen.kind || (operation.kind !== "write" && operation.kind !== "zero")) return false;
  if (operation.offset !== seen.offset || lengthOf(operation) !== seen.length) return false;
  return operation.kind === "zero" || Buffer.compare(operation.bytes, seen.bytes) === 0;
}
