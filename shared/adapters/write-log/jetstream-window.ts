/*
 * The messages of one writer that are on their way: each is published behind the sequence of the one before without waiting
 * for its answer, and counts as stored only when it and all before it were answered with the sequence that was expected. After
 * the first failure no answer counts any more, until resume (jetstream-writer.ts) has read what the stream holds.
 */
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import type { PublishFailure } from "./jetstream-errors.ts";
import type { VolumeStream } from "./jetstream-stream.ts";

/** A message from its first publish to its answer. Its bytes never change: they may be in the stream already. */
export interface OutMessage {
  readonly body: Buffer;
  readonly firstLsn: number;
  readonly lastLsn: number;
  /** Of its last batch. */
  readonly checksum: bigint;
  /** The sequence it wants to follow. */
  lastSequence: number;
  answered: boolean;
  /** How often it was published. */
  sends: number;
}

export interface WindowEvents {
  /** The oldest message is stored, with this sequence. */
  stored(message: OutMessage, sequence: number): void;
  failed(failure: PublishFailure | null): void;
}

export class PublishWindow {
  readonly #stream: VolumeStream;
  readonly #messagesMax: number;
  readonly #events: WindowEvents;
  /** Oldest first. */
  #messages: OutMessage[] = [];
  #bytes = 0;
  #lastSequence = 0;
  #epoch = 0;
  /** Answers of an older generation are not listened to. */
  #generation = 0;
  #answerMs: number = limits.jetstreamAnswerMs;

  constructor(stream: VolumeStream, messagesMax: number, events: WindowEvents) {
    this.#stream = stream;
    this.#messagesMax = messagesMax;
    this.#events = events;
  }

  get count(): number {
    return this.#messages.length;
  }

  /** Takes no more now. Before it moves to a better way all that is under way is answered, so that nothing overtakes. */
  get isFull(): boolean {
    if (this.count === 0) return false;
    if (this.count >= this.#messagesMax || this.#bytes >= limits.jetstreamBytesInFlightMax) return true;
    return this.#stream.way.hasBetter;
  }

  /** The greatest LSN that was sent, or null. */
  get lastLsn(): number | null {
    return this.#messages.at(-1)?.lastLsn ?? null;
  }

  /** A tenure, or what is left of it, goes on behind that sequence; messages in the window are sent again. */
  goOn(epoch: number, lastSequence: number): void {
    this.#generation += 1;
    this.#epoch = epoch;
    this.#lastSequence = lastSequence;
    this.#stream.way.take();
    for (const message of this.#messages) this.#send(message);
  }

  send(body: Buffer, firstLsn: number, lastLsn: number, checksum: bigint): void {
    const message = { body, firstLsn, lastLsn, checksum, lastSequence: 0, answered: false, sends: 0 };
    if (this.count === 0) this.#stream.way.take();
    this.#messages.push(message);
    this.#bytes += body.length;
    this.#send(message);
  }

  /** No answer counts any more. */
  stop(): void {
    this.#generation += 1;
  }

  /** A slow disk looks like a server that is away; each silence makes the next one longer. */
  waitLonger(): void {
    this.#answerMs = Math.min(2 * this.#answerMs, limits.jetstreamAnswerMsMax);
  }

  /**
   * The stream holds our messages up to `lastLsn`, which ends with this checksum. They leave the window. False: what it holds
   * there is not what was sent.
   */
  settle(lastLsn: number, checksum: bigint, taken: (message: OutMessage) => void): boolean {
    const index = this.#messages.findIndex((message) => message.lastLsn === lastLsn);
    if (index === -1 || this.#messages[index]?.checksum !== checksum) return false;
    for (const message of this.#messages.splice(0, index + 1)) {
      this.#bytes -= message.body.length;
      taken(message);
    }
    return true;
  }

  /** Forgets all: their batches will be framed anew. */
  clear(): void {
    this.#generation += 1;
    this.#messages = [];
    this.#bytes = 0;
  }

  #send(message: OutMessage): void {
    message.lastSequence = this.#lastSequence;
    message.answered = false;
    message.sends += 1;
    this.#lastSequence += 1;
    const generation = this.#generation;
    void this.#stream
      .publish(this.#epoch, message.lastSequence, message.body, this.#answerMs)
      .then((answer) => {
        if (generation === this.#generation) this.#answered(message, answer);
      });
  }

  #answered(message: OutMessage, answer: number | PublishFailure): void {
    if (answer !== message.lastSequence + 1) {
      this.#generation += 1;
      this.#events.failed(typeof answer === "number" ? null : answer);
      return;
    }
    message.answered = true;
    this.#answerMs = limits.jetstreamAnswerMs;
    for (let first = this.#messages[0]; first?.answered === true; first = this.#messages[0]) {
      this.#messages.shift();
      this.#bytes -= first.body.length;
      invariant(this.#bytes >= 0, "a window's bytes are those of its messages");
      this.#events.stored(first, first.lastSequence + 1);
      // Its only publish was answered, so no connection still has to send these bytes.
      if (first.sends === 1) this.#stream.giveBack(first.body);
    }
  }
}
