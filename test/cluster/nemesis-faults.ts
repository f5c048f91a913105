// What the nemesis does to a cluster while it is written to, one fault each round. Each heals what it broke before it resolves. Called by
// nemesis-run.ts.
import { sleep } from "../tools/cluster-process.ts";
import type { SeededRandom } from "../tools/seeded-random.ts";
import { type gateNames, type NemesisLab, nodeNames } from "./nemesis-lab.ts";

export interface Fault {
  readonly name: string;
  /** The client's gateway does not survive it: its connection ends, and another gateway takes over. */
  readonly movesClient: boolean;
  run(lab: NemesisLab, random: SeededRandom, gate: (typeof gateNames)[number]): Promise<void>;
}

const between = async (random: SeededRandom, fromMs: number, toMs: number): Promise<void> =>
  sleep(random.between(fromMs, toMs));

export const faults: readonly Fault[] = [
  {
    name: "gateway killed",
    movesClient: true,
    run: async (lab, _random, gate) => {
      await lab.gate(gate).process.kill();
      await lab.startGate(gate);
    },
  },
  {
    // Longer than its lease, so that another one may take it; woken while that one writes.
    name: "gateway paused past its lease",
    movesClient: true,
    run: async (lab, random, gate) => {
      lab.gate(gate).process.signal("SIGSTOP");
      await between(random, 4000, 6000);
      lab.gate(gate).process.signal("SIGCONT");
    },
  },
  {
    name: "storage node killed",
    movesClient: false,
    run: async (lab, random) => {
      const node = random.pick(nodeNames);
      await lab.node(node).kill();
      await between(random, 200, 1500);
      await lab.startNode(node);
    },
  },
  {
    name: "storage node paused",
    movesClient: false,
    run: async (lab, random) => {
      const node = random.pick(nodeNames);
      lab.node(node).signal("SIGSTOP");
      await between(random, 500, 3000);
      lab.node(node).signal("SIGCONT");
    },
  },
  {
    name: "NATS server killed",
    movesClient: false,
    run: async (lab, random) => {
      const server = random.pick(lab.servers.nodes);
      await server.kill();
      await between(random, 200, 2000);
      await server.start();
    },
  },
  {
    name: "NATS server paused",
    movesClient: false,
    run: async (lab, random) => {
      const server = random.pick(lab.servers.nodes);
      server.signal("SIGSTOP");
      await between(random, 500, 4000);
      server.signal("SIGCONT");
    },
  },
  {
    name: "quorum lost",
    movesClient: false,
    run: async (lab, random) => {
      const spared = random.pick(lab.servers.nodes);
      const killed = lab.servers.nodes.filter((server) => server !== spared);
      await Promise.all(killed.map(async (server) => server.kill()));
      await between(random, 500, 2500);
      await Promise.all(killed.map(async (server) => server.start()));
    },
  },
];
