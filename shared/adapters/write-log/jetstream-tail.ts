/*
 * The end of a log in its stream: the last batch that counts, and the last sequence, which another writer's batch may have.
 * Read by take-over and resume. The newest epoch is known from the subjects that hold messages, so batches that a fenced writer
 * still brought in behind it don't matter, however many.
 */
import { lastLsnOf } from "#shared/domain/batch.ts";
import { limits } from "#shared/domain/limits.ts";
import { MessageReader } from "#shared/formats/log-message.ts";
import { damagedMessage } from "./jetstream-errors.ts";
import type { StoredMessage, StreamView, VolumeStream } from "./jetstream-stream.ts";

/** A message that was read and checked: what its batches begin and end with. */
export interface MessageEnds {
  readonly sequence: number;
  readonly epoch: number;
  readonly line: string;
  readonly firstLsn: number;
  readonly lastLsn: number;
  /** Of its last batch. */
  readonly checksum: bigint;
}

export interface LogTail {
  readonly view: StreamView;
  /** Null: the stream never held a batch. */
  readonly last: MessageEnds | null;
}

/** Checks a message whole; throws Corrupt where it is not what a writer of its epoch sent. */
export function messageEnds(stream: string, message: StoredMessage): MessageEnds {
  let ends = null as MessageEnds | null;
  for (const item of new MessageReader().read(message.body)) {
    if ("fault" in item) throw damagedMessage(stream, message.sequence, item.detail);
    const { line, epoch, firstLsn, checksum } = item.batch;
    if (epoch !== message.epoch) {
      throw damagedMessage(stream, message.sequence, `epoch ${epoch} under the subject of ${message.epoch}`);
    }
    ends = {
      sequence: message.sequence,
      epoch,
      line,
      firstLsn: ends?.firstLsn ?? firstLsn,
      lastLsn: lastLsnOf(item.batch),
      checksum,
    };
  }
  if (ends === null) throw damagedMessage(stream, message.sequence, "it holds no batch");
  return ends;
}

/** Null: there is no stream. Rejects Retry while it can't be known, Corrupt where the end is damaged or was removed. */
export async function readTail(stream: VolumeStream): Promise<LogTail | null> {
  // Between both requests the stream may move on; then they are asked again.
  for (let attempt = 0; attempt < limits.jetstreamTailReadsMax; attempt += 1) {
    const view = await stream.view();
    if (view === null) return null;
    const newest = view.epochs.at(-1);
    if (newest === undefined) {
      if (view.lastSequence === 0) return { view, last: null };
      throw damagedMessage(stream.name, view.lastSequence, "it and all before it were removed");
    }
    const message = await stream.lastOf(newest);
    if (message !== null && message.sequence <= view.lastSequence) {
      return { view, last: messageEnds(stream.name, message) };
    }
  }
  throw damagedMessage(stream.name, 0, "its end changes with every look");
}
