/*
 * A volume's stream as one process of a simulated cluster uses it: what LogStream is over NATS, here over cluster-nats.ts. Above it runs
 * the real JetStream log: take-over, window, resume, follower (shared/adapters/write-log/jetstream-*.ts).
 */
import type { StreamConfig } from "@nats-io/jetstream";
import type { ConsumerParts } from "#shared/adapters/write-log/jetstream-consumer.ts";
import type { PublishFailure } from "#shared/adapters/write-log/jetstream-errors.ts";
import {
  changedSettings,
  newSettings,
  type StreamSize,
} from "#shared/adapters/write-log/jetstream-settings.ts";
import type { StoredMessage, StreamView, VolumeStream } from "#shared/adapters/write-log/jetstream-stream.ts";
import type { PublishWay } from "#shared/adapters/write-log/jetstream-way.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { SimulatedBus } from "./cluster-bus.ts";
import { awayError, NoResponder, type SimulatedNats } from "./cluster-nats.ts";
import { leader, servers } from "./cluster-network.ts";
import type { SimulatedProcess } from "./cluster-process.ts";
import type { ServerMessage, StreamState } from "./stream-server.ts";

export interface StreamHome {
  readonly nats: SimulatedNats;
  readonly process: SimulatedProcess;
  readonly bus: SimulatedBus;
  readonly volumeId: string;
}

/** Moves between both connections again and again, as if the leader did. */
class RestlessWay implements PublishWay {
  via = servers;
  private published = 0;

  get hasBetter(): boolean {
    return this.published >= publishesPerWay;
  }

  take(): void {
    if (this.hasBetter) this.avoid();
  }

  avoid(): void {
    this.via = this.via === servers ? leader : servers;
    this.published = 0;
  }

  count(): string {
    this.published += 1;
    return this.via;
  }
}

/** A consumer as the servers keep it. */
interface ServerConsumer {
  next: number;
  readonly generation: number;
  readonly survives: boolean;
}

const publishesPerWay = 20;
const messageOverheadBytes = 100;
const fetchMs = limits.jetstreamFetchMs + 2 * limits.jetstreamHeartbeatMs;

export class SimulatedStream implements VolumeStream {
  readonly name: string;
  readonly bodyBytesMax = limits.jetstreamMessageBytesMax - limits.jetstreamMarginBytes;
  readonly way = new RestlessWay();
  private readonly home: StreamHome;

  constructor(home: StreamHome) {
    this.home = home;
    this.name = `varve-log-${home.volumeId}`;
  }

  async view(): Promise<StreamView | null> {
    const state = await this.read("look", (seen) => seen);
    return state.settings === null ? null : this.viewOf(state, state.settings);
  }

  async create(epoch: number, size: StreamSize): Promise<void> {
    const settings = newSettings(this.name, this.subject(epoch), size) as StreamConfig;
    const { nats } = this.home;
    await this.change("create", () => {
      if (nats.stream(this.name).create(settings, epoch)) return true;
      throw new VarveError("LogAway", "Internal", "there is another stream of that name");
    });
  }

  async moveTo(epoch: number, view: StreamView, size: StreamSize): Promise<void> {
    const settings = changedSettings(view.settings, this.subject(epoch), size) as StreamConfig;
    const { nats } = this.home;
    await this.change("take over", () => {
      nats.stream(this.name).moveTo(settings, epoch);
      return true;
    });
  }

  async at(sequence: number): Promise<StoredMessage | null> {
    return await this.find((message) => message.sequence === sequence);
  }

  async lastOf(epoch: number): Promise<StoredMessage | null> {
    const found = await this.read("read", ({ messages }) => ({
      message: messages.findLast((message) => message.epoch === epoch) ?? null,
    }));
    return found.message;
  }

  async nextOf(epoch: number, sequence: number): Promise<StoredMessage | null> {
    return await this.find((message) => message.epoch === epoch && message.sequence >= sequence);
  }

  async purgeBefore(sequence: number): Promise<void> {
    const { nats } = this.home;
    await this.change("release", () => {
      nats.stream(this.name).purgeBefore(sequence);
      return true;
    });
  }

  async publish(
    epoch: number,
    lastSequence: number,
    body: Uint8Array,
    answerMs: number,
  ): Promise<number | PublishFailure> {
    const { nats, process } = this.home;
    const copy = Uint8Array.from(body);
    try {
      const ask = { changes: true, timeoutMs: answerMs, via: this.way.count() };
      const outcome = await nats.call(process, ask, () => {
        const done = nats.stream(this.name).publish(epoch, lastSequence, copy, process.name);
        if (done === "nobody") throw new NoResponder("nobody captures the subject");
        return done;
      });
      if (outcome !== "wrong") return outcome;
      return { fault: "wrongSequence", error: new VarveError("LogAway", "Internal", "wrong last sequence") };
    } catch (cause) {
      const error = awayError(this.name, "append", cause) as VarveError;
      return { fault: cause instanceof NoResponder ? "noResponder" : "noAnswer", error };
    }
  }

  /** Whoever still needs them finds other bytes. */
  giveBack(body: Uint8Array): void {
    body.fill(0xdb);
  }

  announce(epoch: number): void {
    this.home.bus.publish(this.noticeSubject, Buffer.from(String(epoch)));
  }

  onAnnounced(callback: (epoch: number) => void): () => void {
    const subscription = this.home.bus.subscribe(this.noticeSubject, (data) =>
      callback(Number(Buffer.from(data).toString())),
    );
    return () => subscription.close();
  }

  followLeader(): () => void {
    return () => undefined;
  }

  epochOfSubject(subject: string): number | null {
    const start = this.subject(0).slice(0, -1);
    return subject.startsWith(start) ? Number(subject.slice(start.length)) : null;
  }

  async *messagesFrom(
    sequence: number,
    { clock, signal, onBegun }: ConsumerParts,
  ): AsyncGenerator<StoredMessage, void, undefined> {
    const { nats } = this.home;
    const consumer = await this.read("follow", () => ({
      next: sequence,
      generation: nats.generation,
      survives: nats.random.chance(0.5),
    }));
    onBegun();
    let expected: number | null = null;
    while (!signal.aborted) {
      const fetched = await this.fetch(consumer, clock, signal);
      for (const message of fetched) {
        if (signal.aborted) return;
        if (expected !== null && message.sequence !== expected) return;
        const body = Uint8Array.from(message.body);
        yield { ...message, body };
        this.giveBack(body);
        expected = message.sequence + 1;
      }
    }
  }

  /** The next messages; none: the time is over, the answer was lost, or the signal came. */
  private fetch(
    consumer: ServerConsumer,
    clock: ConsumerParts["clock"],
    signal: AbortSignal,
  ): Promise<readonly StoredMessage[]> {
    const { nats, process } = this.home;
    return new Promise((resolve, reject) => {
      const timer = clock.after(fetchMs, () => end(() => resolve([])));
      const abort = (): void => end(() => resolve([]));
      signal.addEventListener("abort", abort);
      function end(settle: () => void): void {
        timer.cancel();
        signal.removeEventListener("abort", abort);
        settle();
      }
      nats.network.send(process.name, servers, () =>
        this.serveFetch(consumer, nats.scheduler.nowMs + limits.jetstreamFetchMs, (fetched) =>
          nats.network.send(servers, process.name, () =>
            process.take(() =>
              end(() => (fetched === null ? reject(new Error("the consumer is gone")) : resolve(fetched))),
            ),
          ),
        ),
      );
    });
  }

  /** At the servers: answers when there is something, or when the time is over. */
  private serveFetch(
    consumer: ServerConsumer,
    endMs: number,
    answer: (fetched: readonly StoredMessage[] | null) => void,
  ): void {
    const { nats, process } = this.home;
    if (!process.alive) return;
    if (consumer.generation !== nats.generation && !consumer.survives) {
      answer(null);
      return;
    }
    const found = this.visible(consumer.next);
    if (found.length > 0) {
      consumer.next = (found.at(-1)?.sequence ?? 0) + 1;
      const twice = nats.random.chance(nats.habits.redeliveryChance) ? found.slice(0, 1) : [];
      answer([...found, ...twice]);
      return;
    }
    if (nats.scheduler.nowMs >= endMs) {
      answer([]);
      return;
    }
    this.whenMore(consumer, endMs, () => this.serveFetch(consumer, endMs, answer));
  }

  /** At the next append, or where the end that it sees is behind: a little later. */
  private whenMore(consumer: ServerConsumer, endMs: number, run: () => void): void {
    const { nats, process } = this.home;
    const stream = nats.stream(this.name);
    const behind = stream.state().lastSequence >= consumer.next || !nats.hasLeader;
    let done = false;
    const wake = (): void => {
      stream.listeners.delete(wake);
      if (done) return;
      done = true;
      nats.scheduler.after(0.1 + (nats.lagMs.get(process.name) ?? 0), run);
    };
    if (behind) {
      nats.scheduler.after(100, run);
      return;
    }
    stream.listeners.add(wake);
    nats.scheduler.after(Math.max(0, endMs - nats.scheduler.nowMs), wake);
  }

  private visible(next: number): readonly ServerMessage[] {
    const { nats, process } = this.home;
    const seen = nats.seenStream(process, this.name) ?? nats.stream(this.name).state();
    const newestMs = nats.scheduler.nowMs - (nats.lagMs.get(process.name) ?? 0);
    const found: ServerMessage[] = [];
    for (const message of seen.messages) {
      if (message.sequence < next) continue;
      if (message.atMs > newestMs || found.length >= limits.jetstreamFetchMessages) break;
      found.push(message);
    }
    return found;
  }

  private async find(fits: (message: ServerMessage) => boolean): Promise<StoredMessage | null> {
    const found = await this.read("read", ({ messages }) => ({ message: messages.find(fits) ?? null }));
    return found.message;
  }

  private async read<T>(operation: string, work: (seen: StreamState) => T): Promise<T> {
    const { nats, process } = this.home;
    return await this.ask(operation, false, () => {
      const seen = nats.seenStream(process, this.name);
      return seen === null ? null : work(seen);
    });
  }

  private async change(operation: string, work: () => boolean): Promise<void> {
    await this.ask(operation, true, work);
  }

  private async ask<T>(operation: string, changes: boolean, work: () => T | null): Promise<T> {
    const { nats, process } = this.home;
    try {
      return await nats.call(process, { changes, timeoutMs: limits.jetstreamAnswerMs }, work);
    } catch (cause) {
      throw awayError(this.name, operation, cause);
    }
  }

  private viewOf(state: StreamState, settings: StreamConfig): StreamView {
    const { subjectEpoch, firstSequence, lastSequence, messages } = state;
    const epochs = [...new Set(messages.map(({ epoch }) => epoch))].sort((a, b) => a - b);
    const bytes = messages.reduce((sum, { body }) => sum + body.length + messageOverheadBytes, 0);
    const count = messages.length;
    return {
      settings,
      subjectEpoch,
      firstSequence,
      lastSequence,
      messages: count,
      bytes,
      epochs,
      servers: [servers],
    };
  }

  private get noticeSubject(): string {
    return `varve.tenure.${this.home.volumeId}`;
  }

  private subject(epoch: number): string {
    return `varve.log.${this.home.volumeId}.e${epoch}`;
  }
}
