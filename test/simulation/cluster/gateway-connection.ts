/*
 * One client's connection as its gateway serves it: what an NBD connection does, and the judge of every answer at the moment it leaves.
 * Made by cluster-gateway.ts; clients call request() over the network.
 */
import type { VarveError } from "#shared/domain/errors.ts";
import type { BlockExport, Completion } from "#shared/ports/block-export.ts";
import type { Lease } from "#shared/ports/lease.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { VolumeSession } from "../../../services/gateway/engine/volume-session.ts";
import { cellBytes, cellSerial } from "./cells.ts";
import type { SimulatedGateway } from "./cluster-gateway.ts";

export interface ClusterRequest {
  readonly kind: "write" | "trim" | "read" | "flush";
  readonly cell: number;
  readonly cells: number;
  /** What is written; empty for all else. */
  readonly bytes: Buffer;
  /** Of each cell that a write or trim changes. */
  readonly serials: readonly number[];
}

export interface ClusterAnswer {
  readonly error: VarveError | null;
  /** What was read. */
  readonly bytes: Buffer;
}

const nothing = Buffer.alloc(0);

export class GatewayConnection {
  readonly gateway: SimulatedGateway;
  readonly session: VolumeSession;
  /** The client hears that it was cut off. */
  onClosed: () => void = () => undefined;
  unanswered = 0;
  private readonly lease: Lease;
  private readonly opened: BlockExport;
  private closed = false;

  constructor(gateway: SimulatedGateway, session: VolumeSession, lease: Lease, opened: BlockExport) {
    this.gateway = gateway;
    this.session = session;
    this.lease = lease;
    this.opened = opened;
  }

  request(request: ClusterRequest, answer: (answer: ClusterAnswer) => void): void {
    if (this.closed) return;
    this.unanswered += 1;
    const reply = (error: VarveError | null, bytes: Buffer): void => {
      this.unanswered -= 1;
      if (!this.closed) answer({ error, bytes });
    };
    if (request.kind === "read") this.read(request, reply);
    else this.change(request, reply);
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.opened.close();
    this.onClosed();
  }

  private get epoch(): number {
    return this.session.status().log.epoch;
  }

  private read(
    { cell, cells }: ClusterRequest,
    reply: (error: VarveError | null, bytes: Buffer) => void,
  ): void {
    const { oracle, plan } = this.gateway.world;
    // Strict: nothing older than what anybody acknowledged, not this gateway alone.
    const epoch = plan.strictReads ? Number.POSITIVE_INFINITY : this.epoch;
    const floors = Array.from({ length: cells }, (_, index) => oracle.floor(epoch, cell + index));
    const slab: Slab = { bytes: Buffer.alloc(cells * cellBytes, 0xaa), address: 0 };
    const finish = (error: VarveError | null): void => {
      if (error === null) this.judgeRead(cell, floors, slab.bytes);
      reply(error, error === null ? slab.bytes : nothing);
    };
    const done: Completion = { complete: finish };
    if (this.opened.read(cell * cellBytes, cells * cellBytes, slab, 0, done)) finish(null);
  }

  private judgeRead(cell: number, floors: readonly number[], bytes: Buffer): void {
    const { world, name } = this.gateway;
    const { oracle } = world;
    const { epoch } = this;
    world.count("reads judged");
    if (this.session.status().state === "halted" || this.gateway.lostLeases.has(this.lease)) {
      world.fail(`${name} answers a read after its session of epoch ${epoch} was fenced`);
    }
    for (const [index, floor] of floors.entries()) {
      const found = cellSerial(bytes, cell + index, index * cellBytes);
      const why = oracle.judge(cell + index, found, floor);
      if (why !== null) {
        world.fail(`a read through ${name}, epoch ${epoch}: ${why}`);
        return;
      }
      if (typeof found === "number" && found > 0) {
        world.judgeDurable(cell + index, found, `${name} shows`);
        const writer = world.truth.writerOf(cell + index, found);
        if (writer !== null && writer.epoch > epoch && writer.process !== name) {
          world.fail(`${name}, epoch ${epoch}, shows what ${writer.process} wrote in epoch ${writer.epoch}`);
        }
        oracle.saw(epoch, cell + index, found);
      }
    }
  }

  private change(request: ClusterRequest, reply: (error: VarveError | null, bytes: Buffer) => void): void {
    const { cell, cells, bytes, kind } = request;
    const done: Completion = {
      complete: (error) => {
        if (error === null && kind !== "flush") this.judgeAcknowledged(request);
        reply(error, nothing);
      },
    };
    const slab: Slab = { bytes, address: 0 };
    const attempt = (): void => {
      if (this.closed) return;
      const taken =
        kind === "write"
          ? this.opened.write(cell * cellBytes, slab, 0, bytes.length, false, done)
          : kind === "trim"
            ? this.opened.trim(cell * cellBytes, cells * cellBytes, false, done)
            : this.flush(done);
      if (taken) this.opened.endOfInput(false);
      else this.opened.onRoom(attempt);
    };
    attempt();
  }

  private flush(done: Completion): boolean {
    this.opened.flush(done);
    return true;
  }

  private judgeAcknowledged({ cell, serials }: ClusterRequest): void {
    const { world, name } = this.gateway;
    const { epoch } = this;
    world.count("changes acknowledged");
    world.judgeTenure(this.gateway, epoch);
    for (const [index, serial] of serials.entries()) {
      world.judgeDurable(cell + index, serial, `${name} acknowledges`);
      world.oracle.saw(epoch, cell + index, serial);
    }
  }
}
