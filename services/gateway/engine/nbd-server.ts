/*
 * The NBD gateway of one process: listeners, connections, the slow sweep over them, drain and close. Made by the gateway's
 * layer with an export directory; each accepted socket becomes an nbd-connection.ts. Counters are plain, for the API and
 * the metrics page.
 */
import { limits } from "#shared/domain/limits.ts";
import type { ForegroundLoad } from "#shared/memory/foreground-load.ts";
import type { ExportDirectory } from "#shared/ports/block-export.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import {
  type CloseReason,
  type ConnectionFacts,
  type ConnectionHost,
  NbdConnection,
} from "./nbd-connection.ts";
import { type NbdCounters, NbdServerCounters } from "./nbd-counters.ts";
import { type AcceptedSocket, type NbdAddress, NbdListener } from "./nbd-listener.ts";
import { NbdMemory, type SlabSource } from "./nbd-reply-memory.ts";
import { loadSystemCalls, type SystemCalls } from "./nbd-system-calls.ts";

export interface NbdServerOptions {
  readonly directory: ExportDirectory;
  readonly listen: readonly NbdAddress[];
  readonly clock: Clock;
  /** Memory for input and replies; a FileStore is one. */
  readonly slabs: SlabSource;
  readonly connectionsMax?: number;
  /** Told how many requests are in flight. */
  readonly foreground?: ForegroundLoad;
}

export class NbdServer implements ConnectionHost {
  readonly directory: ExportDirectory;
  readonly clock: Clock;
  readonly memory: NbdMemory;
  readonly calls: SystemCalls;
  private requestsInFlight = 0;
  lastRound: NbdConnection | null = null;
  private readonly foreground: ForegroundLoad | null;
  private readonly wanted: readonly NbdAddress[];
  private readonly connectionsMax: number;
  private readonly open = new Set<NbdConnection>();
  /** Counts of connections that are closed. */
  private readonly past = new NbdServerCounters();
  private listeners: NbdListener[] = [];
  private sweepTimer: Timer | null = null;
  private whenEmpty: (() => void)[] = [];
  private draining = false;

  constructor(options: NbdServerOptions) {
    this.directory = options.directory;
    this.clock = options.clock;
    this.memory = new NbdMemory(options.slabs);
    this.calls = loadSystemCalls();
    this.foreground = options.foreground ?? null;
    this.wanted = options.listen;
    this.connectionsMax = options.connectionsMax ?? limits.nbdConnectionsMax;
  }

  get inFlight(): number {
    return this.requestsInFlight;
  }

  countInFlight(change: number): void {
    this.requestsInFlight += change;
    this.foreground?.tell(this.requestsInFlight);
  }

  /** Listens on all addresses, or on none: rejects with a VarveError that names the one that failed. */
  async start(): Promise<void> {
    try {
      for (const address of this.wanted) {
        this.listeners.push(await NbdListener.listen(address, (socket) => this.accept(socket)));
      }
    } catch (cause) {
      this.stopListening();
      throw cause;
    }
  }

  /** Where it listens; a port 0 has become the real one. */
  addresses(): readonly NbdAddress[] {
    return this.listeners.map((listener) => listener.address);
  }

  connections(): readonly ConnectionFacts[] {
    return [...this.open].map((connection) => connection.facts());
  }

  /** Totals since the start, open connections included. */
  counters(): NbdServerCounters {
    const sum = new NbdServerCounters();
    Object.assign(sum, this.past);
    for (const connection of this.open) addCounters(sum, connection.counters);
    return sum;
  }

  /** Closes the connections of one export at once, for a volume that goes away. */
  disconnectExport(name: string): void {
    for (const connection of this.open) {
      if (connection.facts().exportName === name) connection.destroy("server");
    }
  }

  /**
   * Stops listening, answers what is in flight, takes in no new requests, closes each connection when it has
   * nothing left. What is open after `timeoutMs` is cut off. Resolves when no connection is left.
   */
  async drain(timeoutMs: number): Promise<void> {
    this.draining = true;
    this.stopListening();
    for (const connection of this.open) connection.drain();
    if (this.open.size === 0) return;
    const late = this.clock.after(timeoutMs, () => this.cutOff());
    await new Promise<void>((resolve) => this.whenEmpty.push(resolve));
    late.cancel();
  }

  /** Stops at once: listeners and connections. Idempotent. */
  close(): void {
    this.draining = true;
    this.stopListening();
    this.cutOff();
  }

  closed(connection: NbdConnection, reason: CloseReason): void {
    this.open.delete(connection);
    addCounters(this.past, connection.counters);
    if (reason === "broken" || reason === "stalled") this.past.connectionsBroken += 1;
    if (this.open.size > 0) return;
    this.sweepTimer?.cancel();
    this.sweepTimer = null;
    this.memory.shrink();
    for (const resolve of this.whenEmpty.splice(0)) resolve();
  }

  private accept(accepted: AcceptedSocket): void {
    if (this.draining || this.open.size >= this.connectionsMax) {
      this.past.connectionsRefused += 1;
      accepted.refuse();
      return;
    }
    this.past.connectionsAccepted += 1;
    if (accepted.local) this.calls.setSendBuffer(accepted.fd, limits.nbdSendBufferBytes);
    const connection = new NbdConnection(this, accepted);
    this.open.add(connection);
    connection.open();
    if (this.sweepTimer === null) this.sweepLater();
  }

  /** One timer for all connections, and only while there are some. */
  private sweepLater(): void {
    this.sweepTimer = this.clock.after(limits.nbdSweepMs, () => {
      const nowMs = this.clock.monotonicMs();
      for (const connection of this.open) connection.sweep(nowMs);
      this.memory.trim();
      this.sweepTimer = null;
      if (this.open.size > 0) this.sweepLater();
    });
  }

  private stopListening(): void {
    for (const listener of this.listeners.splice(0)) listener.close();
  }

  private cutOff(): void {
    for (const connection of this.open) connection.destroy("server");
  }
}

function addCounters(sum: NbdServerCounters, part: Readonly<NbdCounters>): void {
  sum.readRequests += part.readRequests;
  sum.writeRequests += part.writeRequests;
  sum.flushRequests += part.flushRequests;
  sum.trimRequests += part.trimRequests;
  sum.zeroRequests += part.zeroRequests;
  sum.otherRequests += part.otherRequests;
  sum.failedRequests += part.failedRequests;
  sum.readBytes += part.readBytes;
  sum.writtenBytes += part.writtenBytes;
}
