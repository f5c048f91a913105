/*
 * Batches of a JetStream log as its readers get them: decoded, checked, judged by the rule that leaves out what fenced writers
 * brought in (shared/domain/tenure-filter.ts). Storage nodes and the archiver follow a volume with JetStreamLogFollower; the
 * writer's own read() uses the same loop. Below: jetstream-reader.ts.
 */
import { lastLsnOf } from "#shared/domain/batch.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { type FilterPosition, isMismatch, TenureFilter } from "#shared/domain/tenure-filter.ts";
import { MessageReader, type MessageRecord } from "#shared/formats/log-message.ts";
import type { LoggedBatch } from "#shared/ports/history.ts";
import type { FollowedBatch, FollowFrom, LogEnd, LogFollower } from "#shared/ports/log-follower.ts";
import { damagedMessage, missingStream } from "./jetstream-errors.ts";
import { type JetStreamLogParts, type JetStreamLogSetup, jetStreamLogSetup } from "./jetstream-parts.ts";
import { findPlace, MetPlaces } from "./jetstream-places.ts";
import { pauseReading, type ReadingParts, readMessages } from "./jetstream-reader.ts";
import { readTail } from "./jetstream-tail.ts";
import { endsEarly, notRetained } from "./log-errors.ts";

export class JetStreamLogFollower implements LogFollower {
  readonly #setup: JetStreamLogSetup;
  readonly #onStalled: ReadingParts["onStalled"];
  readonly #met = new MetPlaces();

  /** `onStalled`: told while servers are away, and null when they are back. */
  constructor(parts: JetStreamLogParts | JetStreamLogSetup, onStalled?: ReadingParts["onStalled"]) {
    this.#setup = "stream" in parts ? parts : jetStreamLogSetup(parts);
    this.#onStalled = onStalled;
  }

  async *follow(from: FollowFrom, signal: AbortSignal): AsyncGenerator<FollowedBatch, void, undefined> {
    const { stream, clock } = this.#setup;
    const sequence = await this.#whenReached(() => this.#start(from), signal);
    if (sequence === null) return;
    let begun = from.line !== "";
    const position = begun
      ? { line: from.line, epoch: null, lastLsn: from.appliedLsn, checksum: from.checksum }
      : null;
    const parts = {
      stream,
      clock,
      signal,
      near: true,
      ...(this.#onStalled === undefined ? {} : { onStalled: this.#onStalled }),
    };
    for await (const followed of followBatches(parts, { sequence, position })) {
      const { firstLsn } = followed.batch;
      if (!begun && firstLsn > from.appliedLsn + 1) throw notRetained(from.appliedLsn + 1, firstLsn);
      begun = true;
      yield followed;
    }
  }

  async end(): Promise<LogEnd | null> {
    const tail = await readTail(this.#setup.stream);
    if (tail === null || tail.last === null) return null;
    const { line, epoch, lastLsn, checksum, sequence } = tail.last;
    const oldestLsn = (await this.#setup.oldestLsn(tail.view)) ?? lastLsn + 1;
    const { bytes: diskBytes, settings } = tail.view;
    return {
      line,
      epoch,
      oldestLsn,
      lastLsn,
      checksum,
      sequence,
      diskBytes,
      limitBytes: settings.max_bytes,
    };
  }

  async *read(
    fromLsn: number,
    untilLsn: number,
    signal: AbortSignal,
  ): AsyncGenerator<LoggedBatch, void, undefined> {
    if (fromLsn > untilLsn) return;
    const { stream, clock } = this.#setup;
    const met = this.#met.find(fromLsn);
    const place = met > 0 ? met : await this.#whenReached(() => findPlace(stream, fromLsn), signal);
    if (place === null) return;
    if (place === 0) throw notRetained(fromLsn, (await this.end())?.oldestLsn ?? fromLsn + 1);
    const from = { sequence: place, position: null };
    let begun = false;
    // Who reads a point wants a message here and there.
    for await (const { batch, sequence } of followBatches({ stream, clock, signal, singly: 2 }, from)) {
      const lastLsn = lastLsnOf(batch);
      // Released since its place was found.
      if (!begun && batch.firstLsn > fromLsn) throw notRetained(fromLsn, batch.firstLsn);
      begun = true;
      this.#met.add(batch.firstLsn, lastLsn, sequence);
      if (lastLsn >= fromLsn) yield batch;
      if (lastLsn >= untilLsn) return;
    }
  }

  /** Waits for servers that are away; null: the signal came first. */
  async #whenReached(find: () => Promise<number>, signal: AbortSignal): Promise<number | null> {
    const { clock, openMs } = this.#setup;
    const endMs = clock.monotonicMs() + openMs;
    let waitMs: number = limits.jetstreamRetryFirstWaitMs;
    while (!signal.aborted) {
      try {
        return await find();
      } catch (cause) {
        if (!(cause instanceof VarveError)) throw cause;
        // A leader that is none any more may show an older end for a while.
        const mayPass = cause._tag === "LogEndsEarly" && clock.monotonicMs() < endMs;
        if (cause.kind !== "Retry" && !mayPass) throw cause;
        if (cause.kind === "Retry") this.#onStalled?.(cause);
      }
      await pauseReading({ clock, signal }, waitMs);
      waitMs = Math.min(2 * waitMs, limits.jetstreamRetryWaitMsMax);
    }
    return null;
  }

  /** The sequence to read from: that of the checkpoint's own batch, so that the first one met proves the place. */
  async #start(from: FollowFrom): Promise<number> {
    const { stream } = this.#setup;
    const tail = await readTail(stream);
    if (tail === null) throw missingStream(stream.name, from.appliedLsn);
    const { view, last } = tail;
    if (from.line === "") return view.firstSequence;
    const lastLsn = last?.lastLsn ?? 0;
    if (lastLsn < from.appliedLsn) {
      const place = { file: stream.name, offset: view.lastSequence, lsn: lastLsn + 1 };
      throw endsEarly(stream.name, place, "no batch", from.appliedLsn);
    }
    if (from.sequence >= view.firstSequence && from.sequence <= view.lastSequence) return from.sequence;
    const found = await findPlace(stream, from.appliedLsn);
    if (found > 0) return found;
    // The batch itself is gone. Where the log begins right behind it, the chain proves the place as well.
    const oldestLsn = await this.#setup.oldestLsn(view);
    if (oldestLsn === null || oldestLsn > from.appliedLsn + 1) {
      throw notRetained(from.appliedLsn + 1, oldestLsn ?? from.appliedLsn + 2);
    }
    return view.firstSequence;
  }
}

export interface FollowPlace {
  readonly sequence: number;
  /** Null: the first batch of that message is known to count. */
  readonly position: FilterPosition | null;
}

/** Batches behind the position that count, in order, without end. */
export async function* followBatches(
  parts: ReadingParts,
  { sequence, position }: FollowPlace,
): AsyncGenerator<FollowedBatch, void, undefined> {
  const { name } = parts.stream;
  const filter = new TenureFilter(position);
  const reader = new MessageReader();
  let expected = sequence;
  for await (const message of readMessages(parts, sequence)) {
    const skipped = message.sequence > expected;
    expected = message.sequence + 1;
    for (const item of reader.read(message.body)) {
      if ("fault" in item) throw damagedMessage(name, message.sequence, item.detail);
      const { batch } = item;
      if (batch.epoch !== message.epoch) {
        throw damagedMessage(
          name,
          message.sequence,
          `epoch ${batch.epoch} under the subject of ${message.epoch}`,
        );
      }
      const verdict = filter.judge(batch);
      if (isMismatch(verdict)) {
        // Released while this reader was behind.
        if (verdict.what === "gap" && skipped) throw notRetained(filter.nextLsn, batch.firstLsn);
        throw damagedMessage(name, message.sequence, verdict.detail);
      }
      if (verdict === "next") yield { batch: withRecord(item), sequence: message.sequence };
    }
  }
}

/** The record is made when somebody asks for it. */
function withRecord(item: MessageRecord): LoggedBatch {
  return {
    ...item.batch,
    get record() {
      return item.record;
    },
  };
}
