/*
 * The connection that one writer's publishes take: the one to the server that leads the stream where there is one, else the one that
 * the process shares (docs/specs/jetstream-log.md, "The way of a publish"). Owned by jetstream-stream.ts, which tells who leads; jetstream-window.ts
 * moves when nothing is on its way, jetstream-resume.ts after a failure.
 */
import { type JetStreamClient, jetstream } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { limits } from "#shared/domain/limits.ts";
import type { Clock } from "#shared/ports/clock.ts";

/** Connections to single servers by name: adapters/nats/server-links.ts. */
export interface LeaderLinks {
  hold(server: string): LeaderLink;
}

export interface LeaderLink {
  /** Null while it is not reached. */
  readonly connection: NatsConnection | null;
  drop(): void;
}

/** What the window and resume need of it. */
export interface PublishWay {
  /** A better one is there: to be taken when nothing is on its way. */
  readonly hasBetter: boolean;
  /** The best there is now. */
  take(): void;
  /** No answer came over it. */
  avoid(): void;
}

/** A link over which no answer came is not used for so long; twice as long each time, up to the greater. */
const avoidMs = 5_000;
const avoidMsMax = 60_000;

/** Where all goes over one connection. */
export const onlyWay: PublishWay = { hasBetter: false, take: () => undefined, avoid: () => undefined };

export class LeaderWay implements PublishWay {
  readonly #shared: NatsConnection;
  readonly #links: LeaderLinks;
  readonly #clock: Clock;
  #current: NatsConnection;
  #client: JetStreamClient;
  #leader = "";
  #link: LeaderLink | null = null;
  #isOpen = false;
  #avoidUntilMs = 0;
  #avoidMs = 0;

  constructor(shared: NatsConnection, links: LeaderLinks, clock: Clock) {
    this.#shared = shared;
    this.#links = links;
    this.#clock = clock;
    this.#current = shared;
    this.#client = this.#clientOf(shared);
  }

  get client(): JetStreamClient {
    if (this.#current.isClosed()) this.take();
    return this.#client;
  }

  get hasBetter(): boolean {
    return this.#best() !== this.#current;
  }

  /** Somebody writes: from now on a connection to the leader is held. */
  open(): void {
    this.#isOpen = true;
    this.#hold();
  }

  close(): void {
    this.#isOpen = false;
    this.#drop();
    this.take();
  }

  /** As somebody said; an empty name says nothing. */
  leaderIs(name: string): void {
    if (name === "" || name === this.#leader) return;
    this.#leader = name;
    this.#avoidUntilMs = 0;
    this.#avoidMs = 0;
    this.#drop();
    this.#hold();
  }

  take(): void {
    const best = this.#best();
    if (this.#sharedIsAtLeader) this.#drop();
    if (best === this.#current) return;
    this.#current = best;
    this.#client = this.#clientOf(best);
  }

  avoid(): void {
    // A leader before lost what was on its way: the present one's link is not to blame.
    if (this.#current === this.#shared || this.#current !== this.#link?.connection) return;
    const nowMs = this.#clock.monotonicMs();
    const longAgo = nowMs - this.#avoidUntilMs > avoidMsMax;
    this.#avoidMs = longAgo ? 0 : this.#avoidMs;
    this.#avoidMs = Math.min(Math.max(2 * this.#avoidMs, avoidMs), avoidMsMax);
    this.#avoidUntilMs = nowMs + this.#avoidMs;
    this.take();
  }

  #hold(): void {
    if (!this.#isOpen || this.#leader === "" || this.#sharedIsAtLeader) return;
    this.#link ??= this.#links.hold(this.#leader);
  }

  #drop(): void {
    this.#link?.drop();
    this.#link = null;
  }

  #best(): NatsConnection {
    if (this.#sharedIsAtLeader) return this.#shared;
    if (this.#clock.monotonicMs() < this.#avoidUntilMs) return this.#shared;
    // The shared connection may have been at the leader before.
    this.#hold();
    return this.#link?.connection ?? this.#shared;
  }

  get #sharedIsAtLeader(): boolean {
    return !this.#shared.isClosed() && this.#shared.info?.server_name === this.#leader;
  }

  #clientOf(connection: NatsConnection): JetStreamClient {
    return jetstream(connection, { timeout: limits.jetstreamAnswerMs });
  }
}

/** Where JetStream says that a stream has a new leader. */
export function electionNotice(stream: string): string {
  return `$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.${stream}`;
}

/** The server that it names; empty where it says nothing of the kind. */
export function leaderOfNotice(text: string): string {
  try {
    const { leader } = JSON.parse(text) as { leader?: unknown };
    return typeof leader === "string" ? leader : "";
  } catch {
    return "";
  }
}
