// What the nemesis does to the network between the parts of a cluster: cuts in both directions and in one, a log leader that only its clients
// reach, lossy and slow links. Each heals it before it resolves. Called by nemesis-run.ts beside nemesis-faults.ts.
import type { SeededRandom } from "../tools/seeded-random.ts";
import { between, type Fault } from "./nemesis-faults.ts";
import { type GateName, gateNames, type NemesisLab, nodeNames } from "./nemesis-lab.ts";

export const servers = ["nats-1", "nats-2", "nats-3"] as const;

/** Runs with the network as `cut` makes it, then heals. */
export async function whileCut(
  lab: NemesisLab,
  random: SeededRandom,
  cut: () => Promise<void>,
  fromMs: number,
  toMs: number,
): Promise<void> {
  try {
    await cut();
    await between(random, fromMs, toMs);
  } finally {
    await lab.network.heal();
  }
}

/** Two parts that have something to say to each other. */
function pair(random: SeededRandom, gate: GateName): readonly [string, string] {
  const [one, other] = [random.pick(servers), random.pick(servers)];
  return random.pick([
    [gate, one],
    [random.pick(nodeNames), one],
    [one, one === other ? nextServer(one) : other],
    [gate, random.pick(nodeNames)],
    ["client", gate],
    [random.pick(gateNames), one],
  ] as const);
}

export const partitionFaults: readonly Fault[] = [
  {
    name: "two parts cut from each other",
    client: "stays",
    run: async (lab, random, gate) =>
      whileCut(lab, random, async () => lab.network.part(...pair(random, gate)), 1000, 4000),
  },
  {
    name: "one way between two parts cut",
    client: "stays",
    run: async (lab, random, gate) => {
      const [one, other] = pair(random, gate);
      const [from, to] = random.chance(0.5) ? [one, other] : [other, one];
      await whileCut(lab, random, async () => lab.network.drop(from, to), 1000, 4000);
    },
  },
  {
    // Its clients still reach it: it takes in what it can't keep.
    name: "log leader cut from the other servers",
    client: "stays",
    run: async (lab, random) => {
      const leader = await lab.logLeader();
      const name = servers[lab.servers.nodes.findIndex((node) => node === leader)] ?? "nats-1";
      const others = servers.filter((server) => server !== name);
      await whileCut(
        lab,
        random,
        async () => {
          for (const other of others) await lab.network.part(name, other);
        },
        2000,
        8000,
      );
    },
  },
  {
    name: "storage node cut from NATS",
    client: "stays",
    run: async (lab, random) => {
      const node = random.pick(nodeNames);
      await whileCut(lab, random, async () => fromServers(lab, node), 1000, 4000);
    },
  },
  {
    name: "gateway cut from NATS",
    client: "stays",
    run: async (lab, random, gate) => {
      await whileCut(lab, random, async () => fromServers(lab, gate), 1000, 6000);
    },
  },
  {
    // Its client goes to the other gateway, which takes over while the first one still has its writes to send.
    name: "gateway cut from NATS and its client moves",
    client: "moves",
    run: async (lab, random, gate) => {
      await whileCut(lab, random, async () => fromServers(lab, gate), 2500, 7000);
    },
  },
  {
    name: "lossy link",
    client: "stays",
    run: async (lab, random, gate) => {
      const [one, other] = pair(random, gate);
      await whileCut(
        lab,
        random,
        async () => {
          await lab.network.drop(one, other, 0.2);
          await lab.network.drop(other, one, 0.2);
        },
        1000,
        4000,
      );
    },
  },
  {
    name: "slow link",
    client: "stays",
    run: async (lab, random, gate) => {
      const part = random.pick([...servers, ...nodeNames, gate]);
      await whileCut(lab, random, async () => lab.network.slow(part), 2000, 4000);
    },
  },
];

async function fromServers(lab: NemesisLab, part: string): Promise<void> {
  for (const server of servers) await lab.network.part(part, server);
}

function nextServer(server: (typeof servers)[number]): string {
  return servers[(servers.indexOf(server) + 1) % servers.length] ?? server;
}
