/*
 * Connections to single servers of a cluster, found by the servers' names, beside the one that a process shares: for what is worth its own
 * way to one server (docs/specs/jetstream-log.md, "The way of a publish"). One a server however many hold it. Made by shell/cluster-connection.ts,
 * held by adapters/write-log/jetstream-way.ts.
 */
import type { NatsConnection } from "@nats-io/transport-node";
import type { Clock, Timer } from "#shared/ports/clock.ts";

export interface ServerLinksParts {
  readonly clock: Clock;
  /** Addresses where servers may be, those to be preferred first. */
  readonly addresses: () => readonly string[];
  /** Connects to the server at that address only; when it is lost, it closes. */
  readonly connect: (address: string) => Promise<NatsConnection>;
}

/** What somebody holds. */
export interface HeldLink {
  /** Null: not reached, or not yet. */
  readonly connection: NatsConnection | null;
  drop(): void;
}

const addressesMax = 16;
const firstWaitMs = 1_000;
const waitMsMax = 300_000;
/** A connection that lived so long was worth making. */
const soundMs = 30_000;
const idleMs = 10_000;

export class ServerLinks {
  readonly #parts: ServerLinksParts;
  readonly #links = new Map<string, Link>();
  /** Which name answered at an address when it was asked last. */
  readonly #names = new Map<string, string>();
  #closed = false;

  constructor(parts: ServerLinksParts) {
    this.#parts = parts;
  }

  /** Begins to connect to the server of that name, and again whenever the connection is lost, until it is dropped. */
  hold(name: string): HeldLink {
    let link = this.#links.get(name);
    if (link === undefined) {
      link = new Link(this.#parts.clock, async () => this.#find(name));
      this.#links.set(name, link);
    }
    const held = link;
    held.holders += 1;
    held.begin();
    let dropped = false;
    return {
      get connection() {
        return dropped ? null : held.up;
      },
      drop: () => {
        if (dropped) return;
        dropped = true;
        held.holders -= 1;
        this.#parts.clock.after(idleMs, () => {
          if (held.holders > 0 || this.#links.get(name) !== held) return;
          this.#links.delete(name);
          void held.close();
        });
      },
    };
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#links.values()].map((link) => link.close()));
  }

  /** Null: at none of the addresses is a server of that name. */
  async #find(name: string): Promise<NatsConnection | null> {
    const addresses = [...new Set(this.#parts.addresses())].slice(0, addressesMax);
    // Where it was found before comes first, where another one was last.
    const rank = (address: string): number => {
      const known = this.#names.get(address);
      if (known === undefined) return 1;
      return known === name ? 0 : 2;
    };
    for (const address of addresses.sort((a, b) => rank(a) - rank(b))) {
      if (this.#closed) return null;
      const connection = await this.#parts.connect(address).catch(() => null);
      if (connection === null) continue;
      const found = connection.info?.server_name ?? "";
      this.#names.set(address, found);
      if (found === name && !this.#closed) return connection;
      await connection.close();
    }
    return null;
  }
}

class Link {
  holders = 0;
  readonly #clock: Clock;
  readonly #find: () => Promise<NatsConnection | null>;
  #connection: NatsConnection | null = null;
  #looking = false;
  #closed = false;
  #waitMs = firstWaitMs;
  #again: Timer | null = null;

  constructor(clock: Clock, find: () => Promise<NatsConnection | null>) {
    this.#clock = clock;
    this.#find = find;
  }

  get up(): NatsConnection | null {
    return this.#connection?.isClosed() === false ? this.#connection : null;
  }

  begin(): void {
    if (this.#closed || this.#looking || this.#again !== null || this.#connection !== null) return;
    this.#looking = true;
    void this.#run();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#again?.cancel();
    await this.#connection?.close();
  }

  /** From looking for the server to the end of the connection. */
  async #run(): Promise<void> {
    const connection = await this.#find();
    this.#looking = false;
    if (connection !== null) {
      const sinceMs = this.#clock.monotonicMs();
      this.#connection = connection;
      if (this.#closed) await connection.close();
      await connection.closed();
      this.#connection = null;
      if (this.#clock.monotonicMs() - sinceMs >= soundMs) this.#waitMs = firstWaitMs;
    }
    if (this.#closed) return;
    this.#again = this.#clock.after(this.#waitMs, () => {
      this.#again = null;
      if (this.holders > 0) this.begin();
    });
    this.#waitMs = Math.min(2 * this.#waitMs, waitMsMax);
  }
}
