/*
 * A client of the simulated cluster: connects to any gateway, goes to the holder where it is sent, writes cells that are its own, reads
 * all, and connects again when it is cut off or loses patience. What was acknowledged to it, it wants to see again, wherever it
 * connects. Owned by cluster-world.ts.
 */
import { VarveError } from "#shared/domain/errors.ts";
import type { SeededRandom } from "../scheduler.ts";
import { cellBytes, cellSerial, fillCell } from "./cells.ts";
import type { ClusterWorld } from "./cluster-world.ts";
import { type ClusterAnswer, type ClusterRequest, type GatewayConnection } from "./gateway-connection.ts";

/** Cells of one client stand together in runs of so many. */
export const runCells = 8;
const connectMs = 25_000;

interface Outstanding {
  readonly request: ClusterRequest;
  /** What the client must see in each cell that it reads. */
  readonly floors: readonly number[];
}

export class ClusterClient {
  readonly name: string;
  /** Changes that were acknowledged to it. */
  acknowledged = 0;
  private readonly world: ClusterWorld;
  private readonly random: SeededRandom;
  private readonly runs: readonly number[];
  private readonly depthMax: number;
  private readonly patienceMs: number;
  private connection: GatewayConnection | null = null;
  private connectionNumber = 0;
  private gateway = "";
  private readonly outstanding = new Set<Outstanding>();
  private readonly busyCells = new Set<number>();
  /** Serials of acknowledged changes, by cell. */
  private readonly mine = new Map<number, number>();
  private stopping = false;
  private turnIsDue = false;

  constructor(world: ClusterWorld, name: string, runs: readonly number[]) {
    this.world = world;
    this.name = name;
    this.runs = runs;
    this.random = world.random.fork();
    this.depthMax = this.random.integer(1, 5);
    this.patienceMs = this.random.pick([8000, 20_000, 45_000]);
  }

  start(): void {
    this.stopping = false;
    this.turnSoon(1);
  }

  /** Sends nothing more. */
  stop(): void {
    this.stopping = true;
  }

  get idle(): boolean {
    return this.outstanding.size === 0;
  }

  describe(): string {
    const at = this.connection === null ? "not connected" : `at ${this.gateway}`;
    return `${this.name} (${at}, ${this.outstanding.size} requests)`;
  }

  private turnSoon(ms: number): void {
    if (this.turnIsDue) return;
    this.turnIsDue = true;
    this.world.scheduler.after(ms, () => {
      this.turnIsDue = false;
      this.turn();
    });
  }

  private turn(): void {
    if (this.stopping) return;
    if (this.connection === null) {
      this.connect();
      return;
    }
    // Now and then it comes by another gateway, as a client that was started again does.
    if (this.outstanding.size === 0 && this.random.chance(0.02)) this.leave();
    else if (this.outstanding.size < this.depthMax) this.send(this.nextRequest());
    this.turnSoon(
      this.random.chance(0.4) ? this.random.next() * 5 : this.random.next() * this.world.plan.thinkMs,
    );
  }

  private connect(): void {
    const { world } = this;
    if (this.gateway === "" || this.random.chance(0.3)) this.gateway = this.random.pick(world.gatewayNames);
    const { gateway } = this;
    const number = ++this.connectionNumber;
    let over = false;
    const finish = (connection: GatewayConnection | null, retryMs: number): void => {
      if (over || number !== this.connectionNumber) {
        connection?.close();
        return;
      }
      over = true;
      timer.cancel();
      this.connection = connection;
      if (connection !== null) world.note(`${this.name} is connected to ${gateway}`);
      this.turnSoon(retryMs);
    };
    const timer = world.scheduler.after(connectMs, () => {
      this.gateway = "";
      finish(null, 10);
    });
    world.network.send(this.name, gateway, () => {
      const target = world.gateway(gateway);
      if (target === null) {
        // Refused by its machine.
        this.gateway = "";
        finish(null, 50 + this.random.next() * 500);
        return;
      }
      target.process.take(() => {
        target.open(this.name).then(
          (connection) => {
            connection.onClosed = () => this.hearClosed(gateway, number);
            world.network.send(gateway, this.name, () => finish(connection, 0));
          },
          (cause: unknown) => {
            world.network.send(gateway, this.name, () => finish(null, this.retryAfter(cause)));
          },
        );
      });
    });
  }

  /** Where it is sent elsewhere it goes there at once. */
  private retryAfter(cause: unknown): number {
    if (!(cause instanceof VarveError)) {
      this.world.fail(`opening failed: ${String(cause)}`, cause);
      return 1000;
    }
    const address = cause._tag === "ServedElsewhere" ? String(cause.fields["address"]) : "";
    this.gateway = address;
    return address === "" ? 100 + this.random.next() * 900 : 50;
  }

  private hearClosed(gateway: string, number: number): void {
    this.world.network.send(gateway, this.name, () => this.lost(number));
  }

  /** The machine of its gateway says that the process is gone. */
  broken(gateway: string): void {
    if (this.connection !== null && this.gateway === gateway) this.lost(this.connectionNumber);
  }

  private lost(number: number): void {
    if (number !== this.connectionNumber || this.connection === null) return;
    this.connection = null;
    this.connectionNumber += 1;
    // What was under way may have happened, or may yet.
    this.outstanding.clear();
    this.busyCells.clear();
    this.world.count("connections lost");
    if (!this.stopping) this.turnSoon(20 + this.random.next() * 300);
  }

  private giveUp(): void {
    const { gateway, world } = this;
    world.note(`${this.name} loses patience with ${gateway}`);
    world.count("clients that lost patience");
    this.leave();
  }

  private leave(): void {
    const { connection, gateway, world } = this;
    if (connection === null) return;
    world.network.send(this.name, gateway, () => connection.gateway.process.take(() => connection.close()));
    this.gateway = "";
    this.lost(this.connectionNumber);
  }

  private nextRequest(): ClusterRequest | null {
    const kind = this.random.weighted({ write: 50, trim: 5, read: 35, all: 1, flush: 3 });
    const { oracle } = this.world;
    if (kind === "all") return readOf(0, oracle.cells);
    if (kind === "flush") return { kind, cell: 0, cells: 0, bytes: Buffer.alloc(0), serials: [] };
    if (kind === "read") {
      // What it wrote last is looked at most.
      const last = [...this.mine.keys()].at(-1);
      if (last !== undefined && this.random.chance(0.4)) return readOf(last, 1);
      const cell = this.random.integer(0, oracle.cells);
      return readOf(cell, this.random.integer(1, Math.min(32, oracle.cells - cell) + 1));
    }
    const run = this.random.pick(this.runs);
    const from = this.random.integer(0, runCells);
    const count = this.random.integer(1, runCells - from + 1);
    const cells = Array.from({ length: count }, (_, index) => run + from + index);
    if (cells.some((cell) => this.busyCells.has(cell))) return null;
    const serials = cells.map((cell) => oracle.issue(cell, kind));
    const bytes = Buffer.alloc(kind === "write" ? count * cellBytes : 0);
    if (kind === "write") {
      for (const [index, cell] of cells.entries()) {
        fillCell(bytes, index * cellBytes, cell, serials[index] ?? 0);
        this.busyCells.add(cell);
      }
    } else for (const cell of cells) this.busyCells.add(cell);
    return { kind, cell: run + from, cells: count, bytes, serials };
  }

  private send(request: ClusterRequest | null): void {
    const { world, connection, gateway } = this;
    if (request === null || connection === null) return;
    const number = this.connectionNumber;
    const floors =
      request.kind === "read"
        ? Array.from({ length: request.cells }, (_, index) => this.mine.get(request.cell + index) ?? 0)
        : [];
    const sent = { request, floors };
    this.outstanding.add(sent);
    const timer = world.scheduler.after(this.patienceMs, () => {
      if (this.outstanding.has(sent) && number === this.connectionNumber) this.giveUp();
    });
    world.network.send(this.name, gateway, () =>
      connection.gateway.process.take(() =>
        connection.request(request, (answer) => {
          world.network.send(gateway, this.name, () => {
            timer.cancel();
            if (number === this.connectionNumber && this.outstanding.delete(sent)) this.take(sent, answer);
          });
        }),
      ),
    );
  }

  private take({ request, floors }: Outstanding, { error, bytes }: ClusterAnswer): void {
    const { kind, cell, serials } = request;
    if (kind === "write" || kind === "trim") {
      for (const index of serials.keys()) this.busyCells.delete(cell + index);
      if (error === null) {
        this.acknowledged += 1;
        for (const [index, serial] of serials.entries()) {
          this.mine.delete(cell + index);
          this.mine.set(cell + index, serial);
        }
      } else this.world.count("changes answered with an error");
    } else if (kind === "read" && error === null) {
      for (const [index, floor] of floors.entries()) {
        const found = cellSerial(bytes, cell + index, index * cellBytes);
        const why = this.world.oracle.judge(cell + index, found, floor);
        if (why !== null) this.world.fail(`${this.name}, at ${this.gateway}, reads: ${why}`);
      }
    }
    this.turnSoon(1);
  }
}

function readOf(cell: number, cells: number): ClusterRequest {
  return { kind: "read", cell, cells, bytes: Buffer.alloc(0), serials: [] };
}
