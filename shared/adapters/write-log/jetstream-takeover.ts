/*
 * A tenure begins: the one way in which a writer gets the right to append to a stream (docs/specs/jetstream-log.md, rule 1).
 * Called by open(), and by a writer whose subject somebody moved away and then did nothing more.
 *
 *   look ─► move the subject to e<N> ─► READ THE END AGAIN ─► epoch entry, only behind that very sequence ─► tenure
 *     ▲                                   │ epoch ≥ N there: fenced            │ not stored, or no answer
 *     └───────────────────────────────────┴────────────────────────────────────┘ look again: it may be there
 */
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { entryKind } from "#shared/domain/entry.ts";
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import { packRecord } from "#shared/formats/log-message.ts";
import { frameRecord } from "#shared/formats/log-record.ts";
import { missingStream, wrongSettings } from "./jetstream-errors.ts";
import type { JetStreamLogSetup } from "./jetstream-parts.ts";
import type { StreamView } from "./jetstream-stream.ts";
import { type LogTail, readTail } from "./jetstream-tail.ts";
import { endsEarly, startsLate } from "./log-errors.ts";

export interface TakeoverAsk {
  /** Who writes, for the epoch entry. */
  readonly writer: string;
  /** Exactly this epoch; without it: above every one that the stream knows. */
  readonly epoch: number | undefined;
  /** What must be in the log already. */
  readonly knownLsn: number;
  readonly begin: { readonly line: string; readonly lastLsn: number; readonly epoch: number } | undefined;
}

/** What the epoch entry followed. */
export interface TakeoverBase {
  readonly line: string;
  readonly lastLsn: number;
  readonly checksum: bigint;
}

export interface Tenure {
  readonly kind: "taken";
  readonly epoch: number;
  readonly base: TakeoverBase;
  /** The epoch entry: its LSN is base.lastLsn + 1. */
  readonly checksum: bigint;
  readonly sequence: number;
  /** Before the epoch entry. */
  readonly view: StreamView;
  /** First LSN in the stream, the epoch entry's where it is the first. */
  readonly oldestLsn: number;
}

/** byLog: a batch of that epoch or a newer one is there. bySubject: somebody with a greater number is about to append. */
export interface TakeoverLost {
  readonly kind: "byLog" | "bySubject";
  readonly epoch: number;
}

interface EpochEntry {
  readonly base: TakeoverBase;
  readonly lastSequence: number;
  readonly body: Buffer;
  readonly checksum: bigint;
}

export class Takeover {
  readonly #setup: JetStreamLogSetup;
  readonly #ask: TakeoverAsk;
  #epoch: number | null;
  /** What was sent last: the same bytes go behind the same sequence, and its checksum tells whether it arrived. */
  #entry: EpochEntry | null = null;
  /** Null until everything was checked. */
  #oldestLsn: number | null = null;

  constructor(setup: JetStreamLogSetup, ask: TakeoverAsk) {
    this.#setup = setup;
    this.#ask = ask;
    this.#epoch = ask.epoch ?? null;
  }

  /** One attempt. Null: look again. Rejects Retry where JetStream can't be reached: try again with the same object. */
  async attempt(): Promise<Tenure | TakeoverLost | null> {
    const { stream, size, failpoint } = this.#setup;
    const found = await readTail(stream);
    if (found === null) {
      this.#checkKnown(null);
      await stream.create(this.#ask.epoch ?? (this.#ask.begin?.epoch ?? 0) + 1, size);
      return null;
    }
    const before = this.#judge(found);
    if (before !== null) return before;
    await this.#check(found);
    const epoch = this.#choose(found);
    failpoint("takeover-looked");
    const { settings, subjectEpoch } = found.view;
    const fits = settings.num_replicas === size.replicas && settings.max_bytes === size.bytesMax;
    if (subjectEpoch !== epoch || !fits) await stream.moveTo(epoch, found.view, size);
    failpoint("takeover-moved");

    // Somebody's late update may have set the subject back, and somebody newer may be there by now.
    const tail = await readTail(stream);
    if (tail === null) return null;
    const after = this.#judge(tail);
    if (after !== null) return after;
    if (tail.view.subjectEpoch !== epoch) return null;
    const entry = this.#entryBehind(tail, epoch);
    failpoint("takeover-again");
    const answer = await stream.publish(epoch, entry.lastSequence, entry.body, limits.jetstreamAnswerMs);
    if (answer !== entry.lastSequence + 1) return null;
    failpoint("takeover-entry");
    return this.#taken(epoch, entry, answer, tail.view);
  }

  /** The end of this attempt, if what stands in the stream says so. */
  #judge({ view, last }: LogTail): Tenure | TakeoverLost | null {
    const epoch = this.#epoch;
    const entry = this.#entry;
    if (last !== null && entry !== null && last.checksum === entry.checksum) {
      invariant(epoch !== null, "an entry that was sent has an epoch");
      return this.#taken(epoch, entry, last.sequence, view);
    }
    if (epoch === null) return null;
    if (last !== null && last.epoch >= epoch) return { kind: "byLog", epoch: last.epoch };
    const { subjectEpoch } = view;
    return subjectEpoch !== null && subjectEpoch > epoch ? { kind: "bySubject", epoch: subjectEpoch } : null;
  }

  #taken(epoch: number, entry: EpochEntry, sequence: number, view: StreamView): Tenure {
    const { base, checksum } = entry;
    return {
      kind: "taken",
      epoch,
      base,
      checksum,
      sequence,
      view,
      oldestLsn: this.#oldestLsn ?? base.lastLsn + 1,
    };
  }

  #choose({ view, last }: LogTail): number {
    const { begin } = this.#ask;
    // An empty stream was made with the subject of its first epoch.
    const free = last === null ? Math.max(view.subjectEpoch ?? 0, (begin?.epoch ?? 0) + 1) : 0;
    this.#epoch ??= free > 0 ? free : Math.max(view.subjectEpoch ?? 0, last?.epoch ?? 0) + 1;
    return this.#epoch;
  }

  async #check(tail: LogTail): Promise<void> {
    const { stream } = this.#setup;
    const mistakes = this.#setup.settingsMistakes(tail.view.settings);
    if (mistakes.length > 0) throw wrongSettings(stream.name, mistakes);
    this.#checkKnown(tail);
    if (this.#oldestLsn !== null) return;
    const { knownLsn } = this.#ask;
    const oldestLsn = await this.#setup.oldestLsn(tail.view);
    if (oldestLsn !== null && oldestLsn > knownLsn + 1) throw startsLate(stream.name, oldestLsn, knownLsn);
    await this.#setup.checkServers(tail.view.servers);
    this.#oldestLsn = oldestLsn;
  }

  #checkKnown(tail: LogTail | null): void {
    const { knownLsn, begin } = this.#ask;
    const { name } = this.#setup.stream;
    const lastLsn = tail?.last?.lastLsn ?? begin?.lastLsn ?? 0;
    if (lastLsn >= knownLsn) return;
    if (tail === null && begin === undefined) throw missingStream(name, knownLsn);
    const place = { file: name, offset: tail?.view.lastSequence ?? 0, lsn: lastLsn + 1 };
    throw endsEarly(name, place, "no batch", knownLsn);
  }

  /** The epoch entry behind that end: the very same bytes where it was sent behind the same sequence before. */
  #entryBehind({ view, last }: LogTail, epoch: number): EpochEntry {
    const { lastSequence } = view;
    if (this.#entry !== null && this.#entry.lastSequence === lastSequence) return this.#entry;
    const { clock, random } = this.#setup;
    const { begin, writer } = this.#ask;
    const base = {
      line: last?.line ?? begin?.line ?? random.hex(8),
      lastLsn: last?.lastLsn ?? begin?.lastLsn ?? 0,
      checksum: last?.checksum ?? 0n,
    };
    const draft = new BatchDraft({ bytes: Buffer.alloc(2 * limits.blockBytes), address: 0 });
    draft.addValue(entryKind.epoch, writer);
    draft.firstLsn = base.lastLsn + 1;
    frameRecord(draft, {
      line: base.line,
      epoch,
      wallTimeMs: clock.wallTimeMs(),
      durableLsn: base.lastLsn,
      previousChecksum: base.checksum,
    });
    const packed = Buffer.alloc(limits.blockBytes);
    const body = packed.subarray(0, packRecord(draft, packed, 0));
    this.#entry = { base, lastSequence, body, checksum: draft.checksum };
    return this.#entry;
  }
}
