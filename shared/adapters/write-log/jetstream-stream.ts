/*
 * One volume's stream as the JetStream log uses it: few requests, each with a time limit, answers in plain values, errors with
 * a kind. Everybody who touches the stream goes through here: take-over, publisher, resume, release, readers.
 */
import {
  JetStreamApiError,
  type JetStreamClient,
  type JetStreamManager,
  jetstream,
  jetstreamManager,
  type StreamConfig,
  type StreamInfo,
} from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { limits } from "#shared/domain/limits.ts";
import { messageMemory } from "#shared/memory/message-memory.ts";
import { type ConsumerParts, consume } from "./jetstream-consumer.ts";
import { apiError, isStreamMissing, type PublishFailure, publishFailure } from "./jetstream-errors.ts";
import { changedSettings, newSettings, type StreamSize } from "./jetstream-settings.ts";
import { electionNotice, type LeaderWay, leaderOfNotice, onlyWay, type PublishWay } from "./jetstream-way.ts";

/** What the stream's leader says of it, all from one answer. */
export interface StreamView {
  readonly settings: StreamConfig;
  /** Of the subject that it captures now; null where that is none of ours. */
  readonly subjectEpoch: number | null;
  readonly firstSequence: number;
  readonly lastSequence: number;
  readonly messages: number;
  readonly bytes: number;
  /** Epochs of which there are messages, ascending. */
  readonly epochs: readonly number[];
  /** Names of the servers that hold it. */
  readonly servers: readonly string[];
}

export interface StoredMessage {
  readonly sequence: number;
  /** By its subject. */
  readonly epoch: number;
  readonly body: Uint8Array;
}

/** What take-over, writer and readers need of a stream: a simulated one gives the same. */
export type VolumeStream = Pick<
  LogStream,
  | "name"
  | "bodyBytesMax"
  | "way"
  | "followLeader"
  | "view"
  | "create"
  | "moveTo"
  | "at"
  | "lastOf"
  | "nextOf"
  | "purgeBefore"
  | "publish"
  | "giveBack"
  | "announce"
  | "onAnnounced"
  | "epochOfSubject"
  | "messagesFrom"
>;

export class LogStream {
  readonly name: string;
  readonly connection: NatsConnection;
  readonly client: JetStreamClient;
  /** Which connection publishes take. */
  readonly way: PublishWay;
  readonly #leaderWay: LeaderWay | null;
  readonly #subjectStart: string;
  readonly #allSubjects: string;
  readonly #noticeSubject: string;
  #manager: Promise<JetStreamManager> | null = null;
  /** Names of the servers that held it when it was looked at. */
  #holders: readonly string[] = [];
  /** Looks that wait for an answer. */
  readonly #looks = new Set<() => void>();

  constructor(connection: NatsConnection, volumeId: string, leaderWay: LeaderWay | null = null) {
    this.connection = connection;
    this.way = leaderWay ?? onlyWay;
    this.#leaderWay = leaderWay;
    this.name = `varve-log-${volumeId}`;
    this.#subjectStart = `varve.log.${volumeId}.e`;
    this.#allSubjects = `varve.log.${volumeId}.*`;
    this.#noticeSubject = `varve.tenure.${volumeId}`;
    this.client = jetstream(connection, { timeout: limits.jetstreamAnswerMs });
  }

  /** A message's body at most. */
  get bodyBytesMax(): number {
    const ofServer = this.connection.info?.max_payload ?? limits.jetstreamMessageBytesMax;
    return Math.min(limits.jetstreamMessageBytesMax, ofServer) - limits.jetstreamMarginBytes;
  }

  manager(): Promise<JetStreamManager> {
    this.#manager ??= jetstreamManager(this.connection, {
      timeout: limits.jetstreamAnswerMs,
      checkAPI: false,
    });
    return this.#manager;
  }

  /** Null: there is no such stream. Rejects Retry at once where a leader is elected meanwhile: whoever was asked before is not it. */
  async view(): Promise<StreamView | null> {
    const manager = await this.manager();
    try {
      const asked = manager.streams.info(this.name, { subjects_filter: this.#allSubjects });
      return this.#viewOf(await this.#unlessElected(asked));
    } catch (cause) {
      if (isStreamMissing(cause)) return null;
      throw apiError(this.name, "look", cause);
    }
  }

  /** Makes the stream. Where it is there already with the same settings, that is no error. */
  async create(epoch: number, size: StreamSize): Promise<void> {
    const manager = await this.manager();
    try {
      await manager.streams.add({ ...newSettings(this.name, this.#subject(epoch), size) });
    } catch (cause) {
      throw apiError(this.name, "create", cause);
    }
  }

  /** From now on only the subject of that epoch is captured. */
  async moveTo(epoch: number, view: StreamView, size: StreamSize): Promise<void> {
    const manager = await this.manager();
    try {
      await manager.streams.update(this.name, changedSettings(view.settings, this.#subject(epoch), size));
    } catch (cause) {
      throw apiError(this.name, "take over", cause);
    }
  }

  /** The message with that very sequence, or null. */
  async at(sequence: number): Promise<StoredMessage | null> {
    return await this.#message({ seq: sequence });
  }

  /** The last message of an epoch, or null. */
  async lastOf(epoch: number): Promise<StoredMessage | null> {
    return await this.#message({ last_by_subj: this.#subject(epoch) });
  }

  /** The first message of an epoch at or behind a sequence, or null. */
  async nextOf(epoch: number, sequence: number): Promise<StoredMessage | null> {
    return await this.#message({ seq: sequence, next_by_subj: this.#subject(epoch) });
  }

  /** Every message before `sequence` is forgotten. */
  async purgeBefore(sequence: number): Promise<void> {
    const manager = await this.manager();
    try {
      await manager.streams.purge(this.name, { seq: sequence });
    } catch (cause) {
      throw apiError(this.name, "release", cause);
    }
  }

  /** Appends behind `lastSequence` or not at all; the sequence, or why there is none. Never rejects. */
  async publish(
    epoch: number,
    lastSequence: number,
    body: Uint8Array,
    answerMs: number,
  ): Promise<number | PublishFailure> {
    try {
      const options = { timeout: answerMs, expect: { lastSequence, streamName: this.name } };
      const client = this.#leaderWay?.client ?? this.client;
      const answer = await client.publish(this.#subject(epoch), body, options);
      return answer.seq;
    } catch (cause) {
      return publishFailure(this.name, cause);
    }
  }

  /** Nobody needs the bytes of a message any more: the next one may be made in their memory. */
  giveBack(body: Uint8Array): void {
    messageMemory.giveBack(body);
  }

  /** Messages from that sequence on, until a consumer is lost (then it ends or throws) or its caller has enough. Each is valid until the next. */
  async *messagesFrom(
    sequence: number,
    parts: ConsumerParts,
  ): AsyncGenerator<StoredMessage, void, undefined> {
    const server = this.connection.info?.server_name ?? "";
    const place = { name: this.name, server: this.#holders.includes(server) ? server : null };
    const { connection, client } = this;
    const stream = { connection, manager: await this.manager(), client, ...place };
    for await (const { seq, subject, data } of consume(stream, sequence, parts)) {
      yield { sequence: seq, epoch: this.epochOfSubject(subject) ?? 0, body: data };
      // Its reader went on.
      this.giveBack(data);
    }
  }

  /** Tells whoever has an older tenure to look at the log. A hint: nothing depends on its arrival. */
  announce(epoch: number): void {
    if (!this.connection.isClosed()) this.connection.publish(this.#noticeSubject, String(epoch));
  }

  /** Calls back with the epochs that others announce, until the returned function is called. */
  onAnnounced(callback: (epoch: number) => void): () => void {
    const subscription = this.connection.subscribe(this.#noticeSubject, {
      callback: (error, message) => {
        const epoch = error === null ? Number(message.string()) : Number.NaN;
        if (Number.isSafeInteger(epoch)) callback(epoch);
      },
    });
    return () => subscription.unsubscribe();
  }

  /** Keeps a connection to the leader, whoever that becomes, until the returned function is called. */
  followLeader(): () => void {
    const way = this.#leaderWay;
    if (way === null) return () => undefined;
    way.open();
    const subscription = this.connection.subscribe(electionNotice(this.name), {
      // May be refused: then only looks at the stream tell.
      callback: (error, message) => {
        if (error !== null) return;
        way.leaderIs(leaderOfNotice(message.string()));
        for (const end of this.#looks) end();
      },
    });
    return () => {
      subscription.unsubscribe();
      way.close();
    };
  }

  epochOfSubject(subject: string): number | null {
    if (!subject.startsWith(this.#subjectStart)) return null;
    const digits = subject.slice(this.#subjectStart.length);
    const epoch = Number(digits);
    return /^[1-9][0-9]*$/.test(digits) && Number.isSafeInteger(epoch) ? epoch : null;
  }

  #subject(epoch: number): string {
    return `${this.#subjectStart}${epoch}`;
  }

  /** A request that no leader was there to answer ends by its time limit, which is most of the time until I/O goes on (ADR 010). */
  async #unlessElected<T>(asked: Promise<T>): Promise<T> {
    let end = (): void => undefined;
    const elected = new Promise<never>((_, reject) => {
      end = () => reject(apiError(this.name, "look", null));
    });
    this.#looks.add(end);
    try {
      return await Promise.race([asked, elected]);
    } finally {
      this.#looks.delete(end);
      asked.catch(() => undefined); // it may still fail
    }
  }

  #viewOf(info: StreamInfo): StreamView {
    const { config, state, cluster } = info;
    const epochs = Object.keys(state.subjects ?? {})
      .map((subject) => this.epochOfSubject(subject))
      .filter((epoch) => epoch !== null)
      .sort((a, b) => a - b);
    const servers = [cluster?.leader, ...(cluster?.replicas ?? []).map(({ name }) => name)];
    const named = servers.filter((name) => name !== undefined && name !== "");
    this.#holders = named as string[];
    this.#leaderWay?.leaderIs(cluster?.leader ?? "");
    return {
      settings: config,
      subjectEpoch: config.subjects.length === 1 ? this.epochOfSubject(config.subjects[0] ?? "") : null,
      firstSequence: state.first_seq,
      lastSequence: state.last_seq,
      messages: state.messages,
      bytes: state.bytes,
      epochs,
      servers: named.length > 0 ? (named as string[]) : [this.connection.info?.server_name ?? ""],
    };
  }

  async #message(
    query: { last_by_subj: string } | { seq: number; next_by_subj?: string },
  ): Promise<StoredMessage | null> {
    const manager = await this.manager();
    try {
      const found = await manager.streams.getMessage(this.name, query);
      if (found === null) return null;
      return {
        sequence: found.seq,
        epoch: this.epochOfSubject(found.subject) ?? 0,
        body: found.data,
      };
    } catch (cause) {
      if (cause instanceof JetStreamApiError && cause.status === 404) return null;
      throw apiError(this.name, "read", cause);
    }
  }
}
