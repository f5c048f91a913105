/*
 * Somebody who reads through a gateway without a rest, for a second or two, when something that reads must not show is about to happen: a
 * node beside it replays, another gateway takes over. It looks mostly where something new was seen a moment ago. Each read is judged as any client's (gateway-connection.ts). Made by cluster-world.ts.
 */
import type { SeededRandom } from "../scheduler.ts";
import type { CellOracle } from "./cell-oracle.ts";
import { cellBytes } from "./cells.ts";
import type { SimulatedGateway } from "./cluster-gateway.ts";

const gapMs = 2;
const unansweredMax = 8;

export interface HastyReaderOptions {
  readonly gateway: SimulatedGateway;
  readonly oracle: CellOracle;
  readonly random: SeededRandom;
  readonly later: (delayMs: number, run: () => void) => void;
}

export function readHastily(options: HastyReaderOptions, reads: number): void {
  const { gateway, oracle, random, later } = options;
  if (reads === 0 || !gateway.process.alive) return;
  const [connection] = gateway.connections;
  if (connection !== undefined && !gateway.process.paused && connection.unanswered < unansweredMax) {
    const fresh = oracle.freshCells();
    const isFresh = fresh.length > 0 && random.chance(0.75);
    const cell = isFresh ? random.pick(fresh) : random.integer(0, oracle.cells);
    const request = { kind: "read", cell, cells: 1, bytes: Buffer.alloc(cellBytes), serials: [] } as const;
    connection.request(request, () => undefined);
  }
  later(gapMs, () => readHastily(options, reads - 1));
}
