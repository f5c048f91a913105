/*
 * Somebody who reads through a gateway without a rest, for a second or two, when something that reads must not show is about to happen: a
 * node beside it replays, another gateway takes over. Each read is judged as any client's (gateway-connection.ts). Made by cluster-world.ts.
 */
import type { SeededRandom } from "../scheduler.ts";
import { cellBytes } from "./cells.ts";
import type { SimulatedGateway } from "./cluster-gateway.ts";

const gapMs = 2;
const unansweredMax = 8;

export interface HastyReaderOptions {
  readonly gateway: SimulatedGateway;
  readonly cells: number;
  readonly random: SeededRandom;
  readonly later: (delayMs: number, run: () => void) => void;
}

export function readHastily({ gateway, cells, random, later }: HastyReaderOptions, reads: number): void {
  if (reads === 0 || !gateway.process.alive) return;
  const [connection] = gateway.connections;
  if (connection !== undefined && !gateway.process.paused && connection.unanswered < unansweredMax) {
    const cell = random.integer(0, cells);
    const request = { kind: "read", cell, cells: 1, bytes: Buffer.alloc(cellBytes), serials: [] } as const;
    connection.request(request, () => undefined);
  }
  later(gapMs, () => readHastily({ gateway, cells, random, later }, reads - 1));
}
