/*
 * One stream as the servers hold it: messages, the subject that it captures, what was purged. Every message that is stored is shown to
 * the log's truth (log-truth.ts) at that moment. Owned by cluster-nats.ts.
 */
import type { StreamConfig } from "@nats-io/jetstream";
import type { StoredMessage } from "#shared/adapters/write-log/jetstream-stream.ts";
import type { LogTruth } from "./log-truth.ts";

export interface ServerMessage extends StoredMessage {
  readonly atMs: number;
}

/** What a leader knew at a moment. */
export interface StreamState {
  readonly settings: StreamConfig | null;
  readonly subjectEpoch: number;
  readonly messages: readonly ServerMessage[];
  readonly firstSequence: number;
  readonly lastSequence: number;
}

export class StreamServer {
  private readonly nowMs: () => number;
  private readonly truth: LogTruth;
  private settings: StreamConfig | null = null;
  private subjectEpoch = 0;
  private messages: ServerMessage[] = [];
  private firstSequence = 1;
  private lastSequence = 0;
  /** Called at each append. */
  readonly listeners = new Set<() => void>();

  constructor(nowMs: () => number, truth: LogTruth) {
    this.nowMs = nowMs;
    this.truth = truth;
  }

  state(): StreamState {
    const { settings, subjectEpoch, firstSequence, lastSequence } = this;
    return { settings, subjectEpoch, messages: this.messages, firstSequence, lastSequence };
  }

  /** False: there is one already, with other settings. */
  create(settings: StreamConfig, subjectEpoch: number): boolean {
    if (this.settings !== null) return this.subjectEpoch === subjectEpoch;
    this.settings = settings;
    this.subjectEpoch = subjectEpoch;
    return true;
  }

  moveTo(settings: StreamConfig, subjectEpoch: number): void {
    this.settings = settings;
    this.subjectEpoch = subjectEpoch;
  }

  /** The sequence; "nobody": another subject is captured; "wrong": something else stands behind that sequence. */
  publish(epoch: number, lastSequence: number, body: Uint8Array, from: string): number | "nobody" | "wrong" {
    if (this.settings === null || epoch !== this.subjectEpoch) return "nobody";
    if (lastSequence !== this.lastSequence) return "wrong";
    this.lastSequence += 1;
    const message = {
      sequence: this.lastSequence,
      epoch,
      body: Uint8Array.from(body),
      atMs: this.nowMs(),
    };
    // A new list: old ones are what a leader before knew.
    this.messages = [...this.messages, message];
    this.truth.stored(message, from);
    for (const listener of this.listeners) listener();
    return message.sequence;
  }

  purgeBefore(sequence: number): void {
    const gone = this.messages.filter((message) => message.sequence < sequence);
    if (gone.length === 0) return;
    this.truth.purged(gone);
    this.messages = this.messages.filter((message) => message.sequence >= sequence);
    this.firstSequence = this.messages[0]?.sequence ?? this.lastSequence + 1;
  }
}
