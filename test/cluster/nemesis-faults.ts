// What the nemesis does to a cluster while it is written to, one fault each round: processes killed, paused, restarted, their clocks set. Each
// heals what it broke before it resolves. What it does to the network is nemesis-partitions.ts. Called by nemesis-run.ts.
import { takeoverSteps } from "#shared/ports/failpoint.ts";
import { sleep } from "../tools/cluster-process.ts";
import type { SeededRandom } from "../tools/seeded-random.ts";
import { type GateName, gateNames, type NemesisLab, nodeNames } from "./nemesis-lab.ts";
import { keeperNames } from "./nemesis-past.ts";

export interface Fault {
  readonly name: string;
  /**
   * What happens to the client's connection: `stays`: requests wait, none fails. `moves`: it ends, what waits is not answered with an error,
   * and another gateway takes over.
   */
  readonly client: "stays" | "moves";
  /** Before the load begins. */
  prepare?(lab: NemesisLab, random: SeededRandom, gate: GateName): Promise<void>;
  run(lab: NemesisLab, random: SeededRandom, gate: GateName): Promise<void>;
}

export const between = async (random: SeededRandom, fromMs: number, toMs: number): Promise<void> =>
  sleep(random.between(fromMs, toMs));

const gateFaults: readonly Fault[] = [
  {
    name: "gateway killed",
    client: "moves",
    run: async (lab, _random, gate) => {
      await lab.gate(gate).process.kill();
      await lab.startGate(gate);
    },
  },
  {
    // Around the length of its lease and longer, so that another one may take it; woken while that one writes.
    name: "gateway paused past its lease",
    client: "moves",
    run: async (lab, random, gate) => {
      lab.gate(gate).process.signal("SIGSTOP");
      await between(random, 2500, 6000);
      lab.gate(gate).process.signal("SIGCONT");
    },
  },
  {
    // The next gateway stops in the middle of taking over; the first one, started anew, takes over instead; then the paused one wakes up.
    name: "gateway paused in a takeover",
    client: "moves",
    prepare: async (lab, random, gate) => {
      const other = otherGate(gate);
      await lab.gate(other).process.stop();
      await lab.startGate(other, random.pick(takeoverSteps));
    },
    run: async (lab, random, gate) => {
      await lab.gate(gate).process.kill();
      const { process } = lab.gate(otherGate(gate));
      for (let looks = 0; !process.isPaused && looks < 600; looks += 1) await sleep(20);
      await lab.startGate(gate);
      await between(random, 1000, 6000);
      process.signal("SIGCONT");
    },
  },
  {
    name: "gateway restarted",
    client: "moves",
    run: async (lab, _random, gate) => {
      await lab.gate(gate).process.stop();
      await lab.startGate(gate);
    },
  },
  {
    // All but the client's gateway, which a rolling upgrade does last: "gateway restarted".
    name: "others restarted one by one",
    client: "stays",
    run: async (lab, _random, gate) => {
      for (const node of nodeNames) {
        await lab.node(node).stop();
        await lab.startNode(node);
      }
      for (const server of lab.servers.nodes) {
        await server.stop();
        await server.start();
      }
      await lab.gate(otherGate(gate)).process.stop();
      await lab.startGate(otherGate(gate));
    },
  },
  {
    name: "a clock jumps",
    client: "stays",
    run: async (lab, random, gate) => {
      const part = random.pick([...nodeNames, gate, ...keeperNames]);
      lab.setClock(part, random.pick([-7200, -30, 30, 86_400]));
      await between(random, 2000, 4000);
      lab.setClock(part, 0);
      await sleep(1500);
    },
  },
];

const nodeFaults: readonly Fault[] = [
  {
    name: "storage node killed",
    client: "stays",
    run: async (lab, random) => {
      const node = random.pick(nodeNames);
      await lab.node(node).kill();
      await between(random, 200, 1500);
      await lab.startNode(node);
    },
  },
  {
    name: "storage node paused",
    client: "stays",
    run: async (lab, random) => {
      const node = random.pick(nodeNames);
      lab.node(node).signal("SIGSTOP");
      await between(random, 500, 3000);
      lab.node(node).signal("SIGCONT");
    },
  },
];

const serverFaults: readonly Fault[] = [
  {
    name: "NATS server killed",
    client: "stays",
    run: async (lab, random) => {
      const server = random.pick(lab.servers.nodes);
      await server.kill();
      await between(random, 200, 2000);
      await server.start();
    },
  },
  {
    name: "NATS server paused",
    client: "stays",
    run: async (lab, random) => {
      const server = random.pick(lab.servers.nodes);
      server.signal("SIGSTOP");
      await between(random, 500, 4000);
      server.signal("SIGCONT");
    },
  },
  {
    name: "log leader killed twice",
    client: "stays",
    run: async (lab, random) => {
      for (let kills = 0; kills < 2; kills += 1) {
        const leader = (await lab.logLeader()) ?? random.pick(lab.servers.nodes);
        await leader.kill();
        await between(random, 200, 2500);
        await leader.start();
      }
    },
  },
  {
    name: "quorum lost",
    client: "stays",
    run: async (lab, random) => {
      const spared = random.pick(lab.servers.nodes);
      const killed = lab.servers.nodes.filter((server) => server !== spared);
      await Promise.all(killed.map(async (server) => server.kill()));
      await between(random, 500, 2500);
      await Promise.all(killed.map(async (server) => server.start()));
    },
  },
];

export const processFaults: readonly Fault[] = [...gateFaults, ...nodeFaults, ...serverFaults];

export function otherGate(gate: GateName): GateName {
  return gateNames.find((name) => name !== gate) ?? gate;
}
