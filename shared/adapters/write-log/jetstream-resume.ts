/*
 * After a failure a writer finds out what the stream holds, and goes on: nothing that was sent is lost, stored twice or
 * reordered (docs/specs/jetstream-log.md, "Resume"). Owned by jetstream-writer.ts, which sends nothing meanwhile.
 *
 *   read the end ─ newer epoch in the log ─────────────────► fenced
 *       │        ─ not what we sent, or less than durable ──► halted
 *       │        ─ subject moved away, or a stranger behind ─► take over again ─► new epoch, the rest is framed anew
 *       └────────── ours ────────────────────────────────────► what is there counts, the rest is sent again, same bytes
 */
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { LogOpenOptions } from "#shared/ports/write-log.ts";
import {
  damagedMessage,
  fencedByEpoch,
  leaseGone,
  lostEntries,
  missingStream,
  type PublishFailure,
} from "./jetstream-errors.ts";
import type { JetStreamLogSetup } from "./jetstream-parts.ts";
import { type LogTail, readTail } from "./jetstream-tail.ts";
import { Takeover, type Tenure } from "./jetstream-takeover.ts";
import type { PublishWindow } from "./jetstream-window.ts";

/** The writer, as resume needs it. */
export interface ResumedWriter {
  readonly setup: JetStreamLogSetup;
  readonly options: LogOpenOptions;
  readonly window: PublishWindow;
  readonly epoch: number;
  readonly durable: { readonly lsn: number; readonly checksum: bigint };
  readonly ended: VarveError | null;
  /** The stream ends with that batch: what was sent up to it is durable. False: it is none of ours. */
  settle(lastLsn: number, checksum: bigint): boolean;
  goOn(lastSequence: number): void;
  beginAgain(tenure: Tenure): void;
  stall(error: VarveError | null): void;
  end(error: VarveError): void;
}

export class Resume {
  readonly #writer: ResumedWriter;
  /** Failures since the last message that was stored. */
  #failures = 0;
  #sinceMs: number | null = null;
  /** Since when less than the durable entries was seen. */
  #lostSinceMs: number | null = null;
  /** Since when another epoch's subject is set. */
  #movedSinceMs: number | null = null;

  constructor(writer: ResumedWriter) {
    this.#writer = writer;
  }

  /** A message was stored: whatever was wrong is over. */
  progressed(): void {
    this.#failures = 0;
    this.#sinceMs = null;
  }

  /** Resolves when the writer goes on or has ended. */
  async failed(failure: PublishFailure | null): Promise<void> {
    const { clock } = this.#writer.setup;
    this.#sinceMs ??= clock.monotonicMs();
    this.#failures += 1;
    if (failure?.fault === "noAnswer") {
      this.#writer.window.waitLonger();
      this.#writer.setup.stream.way.avoid();
    }
    if (failure?.fault === "noSpace") this.#writer.stall(failure.error);
    // The first look is at once: most failures are a leader that moved, or a notice.
    let waitMs = this.#failures === 1 ? 0 : this.#waitMs(this.#failures);
    let looks = 0;
    let error = failure?.error ?? null;
    while (this.#writer.ended === null) {
      this.#tellStall(error);
      await pause(this.#writer.setup, waitMs);
      looks += 1;
      waitMs = this.#waitMs(looks);
      try {
        if (await this.#look()) return;
      } catch (cause) {
        if (!(cause instanceof VarveError) || cause.kind !== "Retry") throw cause;
        error = cause;
      }
    }
  }

  #waitMs(count: number): number {
    return Math.min(
      limits.jetstreamRetryFirstWaitMs * 2 ** Math.min(count, 10),
      limits.jetstreamRetryWaitMsMax,
    );
  }

  #tellStall(error: VarveError | null): void {
    const { clock } = this.#writer.setup;
    const forMs = clock.monotonicMs() - (this.#sinceMs ?? clock.monotonicMs());
    if (error !== null && forMs >= limits.jetstreamAnswerMs && error.kind === "Retry")
      this.#writer.stall(error);
  }

  /** True: the writer goes on, or ended. */
  async #look(): Promise<boolean> {
    const writer = this.#writer;
    const { stream } = writer.setup;
    const tail = await readTail(stream);
    if (writer.ended !== null) return true;
    if (tail === null) {
      writer.end(missingStream(stream.name, writer.durable.lsn));
      return true;
    }
    const { view, last } = tail;
    if (last !== null && last.epoch > writer.epoch) {
      writer.end(fencedByEpoch(stream.name, writer.epoch, last.epoch));
      return true;
    }
    if (last === null || last.epoch < writer.epoch || last.lastLsn < writer.durable.lsn) {
      return this.#lessThanDurable(last?.lastLsn ?? 0);
    }
    this.#lostSinceMs = null;
    if (!writer.settle(last.lastLsn, last.checksum)) {
      writer.end(damagedMessage(stream.name, last.sequence, "it is not what this writer sent"));
      return true;
    }
    if (view.subjectEpoch === writer.epoch && view.lastSequence === last.sequence) {
      this.#movedSinceMs = null;
      writer.goOn(last.sequence);
      return true;
    }
    return await this.#takeOverAgain(tail);
  }

  /** A leader that is none any more may answer so for a while; one that stays so has lost data. */
  #lessThanDurable(foundLsn: number): boolean {
    const writer = this.#writer;
    const { clock, stream, openMs } = writer.setup;
    this.#lostSinceMs ??= clock.monotonicMs();
    if (clock.monotonicMs() - this.#lostSinceMs < openMs) return false;
    writer.end(lostEntries(stream.name, foundLsn, writer.durable.lsn));
    return true;
  }

  /**
   * Somebody moved the subject away, or a fenced writer got a message in. Who moved it forward is about to append an epoch
   * entry; only that ends our tenure. Where it does not come, we take a number above all of them, if the lease lets us.
   */
  async #takeOverAgain({ view }: LogTail): Promise<boolean> {
    const writer = this.#writer;
    const { clock, stream, takeoverMs } = writer.setup;
    const { renewEpoch } = writer.options;
    if (view.subjectEpoch !== null && view.subjectEpoch > writer.epoch) {
      this.#movedSinceMs ??= clock.monotonicMs();
      if (clock.monotonicMs() - this.#movedSinceMs < takeoverMs) return false;
    }
    const above = Math.max(view.subjectEpoch ?? 0, writer.epoch);
    const epoch = renewEpoch === undefined ? above + 1 : await renewEpoch(above);
    if (writer.ended !== null) return true;
    if (epoch === null) {
      writer.end(leaseGone(stream.name, writer.epoch));
      return true;
    }
    const outcome = await this.#take(epoch);
    if (outcome === null) return writer.ended !== null;
    this.#movedSinceMs = null;
    const { base } = outcome;
    if (base.lastLsn < writer.durable.lsn || !writer.settle(base.lastLsn, base.checksum)) {
      writer.end(damagedMessage(stream.name, outcome.sequence - 1, "it is not what this writer sent"));
      return true;
    }
    writer.beginAgain(outcome);
    return true;
  }

  /** Null: the end must be judged again. */
  async #take(epoch: number): Promise<Tenure | null> {
    const writer = this.#writer;
    const takeover = new Takeover(writer.setup, {
      writer: writer.options.writer,
      epoch,
      knownLsn: writer.durable.lsn,
      begin: undefined,
    });
    let waitMs: number = limits.jetstreamRetryFirstWaitMs;
    while (writer.ended === null) {
      try {
        const outcome = await takeover.attempt();
        if (outcome?.kind === "taken") return outcome;
        if (outcome !== null) return null;
      } catch (cause) {
        if (!(cause instanceof VarveError) || cause.kind !== "Retry") throw cause;
        this.#tellStall(cause);
      }
      await pause(writer.setup, waitMs);
      waitMs = Math.min(2 * waitMs, limits.jetstreamRetryWaitMsMax);
    }
    return null;
  }
}

function pause({ clock }: JetStreamLogSetup, delayMs: number): Promise<void> {
  if (delayMs === 0) return Promise.resolve();
  return new Promise((resolve) => {
    clock.after(delayMs, resolve);
  });
}
