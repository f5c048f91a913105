/*
 * Writes groups: takes drafts that wait, gives them their places, frames them in place and writes them with one gathered
 * write; at most two groups under way, results told in order only. The embedded writer owns it; BlockFile comes next. What
 * a group's end means (stored, durable) is the embedded writer's.
 */
import { toVarveError, type VarveError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import { frameRecord } from "#shared/formats/log-record.ts";
import { writeSegmentHeader } from "#shared/formats/log-segment.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { Durability } from "#shared/ports/write-log.ts";
import type { DraftQueue } from "./draft-queue.ts";
import { InlineGate, inlineBytesMax } from "./inline-gate.ts";
import type { LogSetup } from "./log-options.ts";
import { recordBytesOfDraft } from "./record-draft.ts";
import { type LogSegment, segmentBodyStart } from "./segment-file.ts";
import type { SegmentSet } from "./segment-set.ts";

interface MutablePiece {
  slab: Slab;
  start: number;
  length: number;
}

/** One group under way; reused. */
class Group {
  readonly pieces: MutablePiece[] = [];
  readonly header: Slab;
  segment: LogSegment | null = null;
  offset = 0;
  bytes = 0;
  lastLsn = 0;
  startedMs = 0;
  done = false;
  error: VarveError | null = null;

  constructor(header: Slab) {
    this.header = header;
  }

  addPiece(slab: Slab, length: number): void {
    this.pieces.push({ slab, start: 0, length });
    this.bytes += length;
  }

  clear(): void {
    this.pieces.length = 0;
    this.segment = null;
    this.bytes = 0;
    this.done = false;
    this.error = null;
  }
}

/** What the embedded writer keeps for all parts: where the log stands. */
export interface LogPosition {
  readonly line: string;
  readonly epoch: number;
  readonly durableLsn: number;
}

export interface GroupListener {
  /** Groups up to `lsn` were written, `bytes` since the last call. Never called from inside issue(). */
  written(lsn: number, bytes: number): void;
  /** A write failed and none is under way any more. Nothing is known of what was not told written. */
  failed(error: VarveError): void;
}

export class GroupWriter {
  readonly #setup: LogSetup;
  readonly #set: SegmentSet;
  readonly #queue: DraftQueue;
  readonly #position: LogPosition;
  readonly #durability: Durability;
  readonly #listener: GroupListener;
  readonly #gate = new InlineGate();
  readonly #free: Group[] = [];
  /** Groups under way, oldest first. */
  readonly #underWay: Group[] = [];
  /** Checksum of the last framed record. */
  #chain: bigint;
  #error: VarveError | null = null;
  #settleQueued = false;
  #drained: (() => void) | null = null;
  readonly #frame = { line: "", epoch: 0, wallTimeMs: 0, durableLsn: 0, previousChecksum: 0n };
  readonly #settleLater: () => void;

  constructor(
    setup: LogSetup,
    set: SegmentSet,
    queue: DraftQueue,
    position: LogPosition,
    chain: bigint,
    durability: Durability,
    listener: GroupListener,
  ) {
    this.#setup = setup;
    this.#set = set;
    this.#queue = queue;
    this.#position = position;
    this.#chain = chain;
    this.#durability = durability;
    this.#listener = listener;
    this.#frame.line = position.line;
    this.#frame.epoch = position.epoch;
    for (let index = 0; index < setup.groupsInFlightMax; index += 1) {
      this.#free.push(new Group(setup.store.allocateSlab(limits.blockBytes)));
    }
    this.#settleLater = () => this.settleNow();
  }

  /** Resolves when no group is under way. */
  async drained(): Promise<void> {
    if (this.#underWay.length === 0) return;
    await new Promise<void>((resolve) => {
      this.#drained = resolve;
    });
  }

  /** Starts groups while drafts wait and one is free. False where a group waits for a segment or a slice of zeroes. */
  issue(mayBlock: boolean): boolean {
    while (this.#error === null && this.#queue.waiting > 0 && this.#free.length > 0) {
      const group = this.#gather();
      if (group === null) return false;
      this.#underWay.push(group);
      if (this.#mayWriteHere(group, mayBlock)) this.#writeHere(group);
      else this.#writeOnThread(group);
    }
    return true;
  }

  /** Tells what a write on this thread has ended already; else a microtask does. Not to be called from inside issue(). */
  settleNow(): void {
    if (!this.#settleQueued) return;
    this.#settleQueued = false;
    this.#settle();
  }

  /** After a repair: all drafts so far are in place, groups may start again. */
  resume(): void {
    invariant(this.#underWay.length === 0, "groups start again after all of them have ended");
    this.#error = null;
  }

  /** A sync failed: no group starts until resume(); failed() is called when none is under way any more. */
  halt(error: VarveError): void {
    this.#error ??= error;
    if (this.#underWay.length === 0) this.#listener.failed(this.#error);
  }

  /** The next group, framed and placed; null where its place is not ready. */
  #gather(): Group | null {
    const first = this.#queue.waitingAt(0);
    const firstBytes = recordBytesOfDraft(first);
    if (this.#blockedByZeroes(firstBytes)) return null;
    const segment = this.#set.place(firstBytes);
    const group = this.#free.at(-1);
    if (segment === null || group === undefined) return null;
    this.#free.pop();
    group.clear();
    group.segment = segment;
    group.offset = segment.started ? segment.endOffset : 0;
    if (!segment.started) this.#startSegment(group, segment, first.firstLsn);
    let end = segment.endOffset;
    for (let count = 0; count < this.#setup.groupBatchesMax && this.#queue.waiting > 0; count += 1) {
      const bytes = recordBytesOfDraft(this.#queue.waitingAt(0));
      const tooLong = count > 0 && group.bytes + bytes > this.#setup.groupBytesMax;
      if (tooLong || end + bytes > segment.sizeBytes) break;
      if (count > 0 && this.#overlapsZeroes(segment, end + bytes)) break;
      this.#frameNext(group, segment, end);
      end += bytes;
    }
    segment.preparedBytes = Math.max(segment.preparedBytes, end);
    segment.writers += 1;
    return group;
  }

  #frameNext(group: Group, segment: LogSegment, offset: number): void {
    const draft = this.#queue.takeWaiting();
    const frame = this.#frame;
    frame.wallTimeMs = draft.wallTimeMs;
    frame.durableLsn = this.#position.durableLsn;
    frame.previousChecksum = this.#chain;
    frameRecord(draft, frame);
    this.#chain = draft.checksum;
    group.addPiece(draft.slab, draft.recordBytes);
    group.lastLsn = draft.lastLsn;
    segment.notePlaced(draft.firstLsn, offset, draft.recordBytes, draft.previousChecksum);
  }

  /** The header block goes with the segment's first group. */
  #startSegment(group: Group, segment: LogSegment, firstLsn: number): void {
    segment.start(firstLsn, this.#chain);
    writeSegmentHeader(group.header.bytes, 0, {
      volumeId: this.#setup.volumeId,
      line: this.#position.line,
      sequence: segment.sequence,
      segmentBytes: segment.sizeBytes,
      firstLsn,
      durableLsn: this.#position.durableLsn,
      previousChecksum: this.#chain,
    });
    group.addPiece(group.header, segmentBodyStart);
  }

  /** True while zeroes are being written where the next record goes. */
  #blockedByZeroes(recordBytes: number): boolean {
    const current = this.#set.current;
    if (current.open && current.endOffset + recordBytes <= current.sizeBytes) {
      return this.#overlapsZeroes(current, current.endOffset + recordBytes);
    }
    const next = this.#set.ahead[0];
    return next !== undefined && this.#overlapsZeroes(next, segmentBodyStart + recordBytes);
  }

  #overlapsZeroes(segment: LogSegment, end: number): boolean {
    return segment.preparingEnd > 0 && end > segment.preparedBytes;
  }

  #mayWriteHere(group: Group, mayBlock: boolean): boolean {
    return mayBlock && this.#underWay.length === 1 && group.bytes <= inlineBytesMax && this.#gate.open;
  }

  #writeHere(group: Group): void {
    const file = group.segment?.writable;
    invariant(file !== undefined, "a group has its segment");
    const startedMs = this.#setup.clock.monotonicMs();
    try {
      if (this.#durability === "write") file.writeDurableInline(group.pieces, group.offset);
      else file.writeInline(group.pieces, group.offset);
    } catch (cause) {
      group.error = toVarveError(cause, "writing the log");
    }
    this.#gate.sample(this.#setup.clock.monotonicMs() - startedMs);
    group.done = true;
    this.#queueSettle();
  }

  #writeOnThread(group: Group): void {
    const file = group.segment?.writable;
    invariant(file !== undefined, "a group has its segment");
    group.startedMs = this.#setup.clock.monotonicMs();
    const writing =
      this.#durability === "write"
        ? file.writeDurable(group.pieces, group.offset)
        : file.write(group.pieces, group.offset);
    writing.then(
      () => this.#finished(group, null),
      (cause: unknown) => this.#finished(group, toVarveError(cause, "writing the log")),
    );
  }

  #finished(group: Group, error: VarveError | null): void {
    group.done = true;
    group.error = error;
    if (group.bytes <= inlineBytesMax) this.#gate.sample(this.#setup.clock.monotonicMs() - group.startedMs);
    this.#settle();
  }

  #queueSettle(): void {
    if (this.#settleQueued) return;
    this.#settleQueued = true;
    queueMicrotask(this.#settleLater);
  }

  /** Takes ended groups off in order; after a failure only waits for the rest. */
  #settle(): void {
    let lsn = 0;
    let bytes = 0;
    while (this.#underWay[0]?.done === true) {
      const group = this.#underWay.shift();
      if (group === undefined) break;
      if (group.segment !== null) group.segment.writers -= 1;
      this.#error ??= group.error;
      if (this.#error === null) {
        if (this.#durability === "flush" && group.segment !== null) group.segment.dirty = true;
        lsn = group.lastLsn;
        bytes += group.bytes;
      }
      this.#free.push(group);
    }
    if (lsn > 0) this.#listener.written(lsn, bytes);
    if (this.#underWay.length > 0) return;
    if (this.#error !== null) this.#listener.failed(this.#error);
    this.#drained?.();
    this.#drained = null;
  }
}
