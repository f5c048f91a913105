/*
 * Batches of one writer from append to durable, and how they become messages: as many whole records as make about 256 KiB,
 * more where a lot waits, never more than a message may hold. Frames them in order, so that chain and LSNs follow from the
 * order of appends alone. Owned by jetstream-writer.ts.
 */
import { invariant } from "#shared/domain/invariant.ts";
import { messageBytesBound, packRecord } from "#shared/formats/log-message.ts";
import { frameRecord, type RecordFrame } from "#shared/formats/log-record.ts";
import { largeMessageBytes, messageMemory } from "#shared/memory/message-memory.ts";
import { DraftQueue } from "./draft-queue.ts";
import { type RecordDraft, recordBytesOfDraft } from "./record-draft.ts";

/** What a message is made of. */
export interface GatheredMessage {
  readonly body: Buffer;
  readonly firstLsn: number;
  readonly lastLsn: number;
  readonly checksum: bigint;
}

/** A full window's worth is cut into so many messages rather than into many small ones. */
const messagesPerBacklog = 4;

export class MessageQueue {
  readonly #drafts = new DraftQueue();
  readonly #bodyBytesMax: number;
  readonly #gatherBytes: number;
  /** Bytes of the drafts that wait, as messages count them. */
  #waitingBytes = 0;
  /** Room that all drafts up to durable were promised, as LogState counts it. */
  promisedBytes = 0;

  constructor(bodyBytesMax: number, gatherBytes: number) {
    this.#bodyBytesMax = bodyBytesMax;
    this.#gatherBytes = gatherBytes;
  }

  get isEmpty(): boolean {
    return this.#drafts.waiting === 0;
  }

  /** A message of the usual size could be made. */
  get hasFullMessage(): boolean {
    return this.#waitingBytes >= this.#gatherBytes;
  }

  push(draft: RecordDraft): void {
    this.#drafts.push(draft);
    this.#waitingBytes += messageBytesBound(draft);
    this.promisedBytes += recordBytesOfDraft(draft);
  }

  /** Frames the next drafts behind `previousChecksum` and puts them into one message. */
  gather(frame: Omit<RecordFrame, "previousChecksum" | "wallTimeMs">, previous: bigint): GatheredMessage {
    const count = this.#countOfNext();
    let bytes = 0;
    for (let index = 0; index < count; index += 1) bytes += messageBytesBound(this.#drafts.waitingAt(index));
    const body = bytes >= largeMessageBytes ? messageMemory.take(bytes) : Buffer.allocUnsafeSlow(bytes);
    let end = 0;
    let checksum = previous;
    let firstLsn = 0;
    let lastLsn = 0;
    for (let index = 0; index < count; index += 1) {
      const draft = this.#drafts.takeWaiting();
      this.#waitingBytes -= messageBytesBound(draft);
      frameRecord(draft, { ...frame, wallTimeMs: draft.wallTimeMs, previousChecksum: checksum });
      checksum = draft.checksum;
      end = packRecord(draft, body, end);
      if (index === 0) firstLsn = draft.firstLsn;
      lastLsn = draft.lastLsn;
    }
    return { body: body.subarray(0, end), firstLsn, lastLsn, checksum };
  }

  /** Forgets drafts up to `lsn`, which are durable now. */
  dropThrough(lsn: number): void {
    while (this.#drafts.undurable > 0 && this.#drafts.undurableAt(0).lastLsn <= lsn) {
      const draft = this.#drafts.undurableAt(0);
      this.promisedBytes -= recordBytesOfDraft(draft);
      this.#drafts.dropThrough(draft.lastLsn);
    }
  }

  /** All that is not durable waits again, each LSN one greater: another entry goes before it. */
  renumber(): void {
    this.#drafts.reissue();
    this.#waitingBytes = 0;
    for (let index = 0; index < this.#drafts.waiting; index += 1) {
      const draft = this.#drafts.waitingAt(index);
      draft.firstLsn += 1;
      this.#waitingBytes += messageBytesBound(draft);
    }
  }

  clear(): void {
    this.#drafts.clear();
    this.#waitingBytes = 0;
    this.promisedBytes = 0;
  }

  #countOfNext(): number {
    const wanted = Math.min(
      this.#bodyBytesMax,
      Math.max(this.#gatherBytes, Math.floor(this.#waitingBytes / messagesPerBacklog)),
    );
    let bytes = 0;
    let count = 0;
    while (count < this.#drafts.waiting && bytes < wanted) {
      const next = messageBytesBound(this.#drafts.waitingAt(count));
      if (count > 0 && bytes + next > this.#bodyBytesMax) break;
      bytes += next;
      count += 1;
    }
    invariant(count > 0, "a message is made of a waiting batch");
    invariant(bytes <= this.#bodyBytesMax, "a batch fits a message");
    return count;
  }
}
