// The failures of the table, and what each may cost its client at the most. Called by failures.ts; what the lab can break is
// test/cluster/nemesis-lab.ts.
import type { NemesisLab } from "../../cluster/nemesis-lab.ts";
import { nodeNames } from "../../cluster/nemesis-lab.ts";
import { keeperNames } from "../../cluster/nemesis-past.ts";
import { sleep } from "../../tools/cluster-process.ts";
import { type PatientClient, volume } from "./patient-client.ts";

export interface Failure {
  readonly name: string;
  readonly title: string;
  readonly limit: {
    readonly text: string;
    readonly readMs?: number;
    readonly writeMs?: number;
    readonly noError: boolean;
  } | null;
  /** In a lab with archivers and a bucket. */
  readonly needsPast?: boolean;
  run(lab: NemesisLab, client: PatientClient): Promise<void>;
}

const servers = ["nats-1", "nats-2", "nats-3"] as const;

const gatewayFailures: readonly Failure[] = [
  {
    name: "gateway killed",
    title: "gateway killed (`kill -9`)",
    limit: { text: "I/O again in 5 s", readMs: 5000, writeMs: 5000, noError: true },
    run: async (lab, { gate }) => {
      await lab.gate(gate).process.kill();
      await lab.startGate(gate);
      await sleep(4000);
    },
  },
  {
    // It has no time-out of its own; one that has goes to the next gateway, which takes the lease over.
    name: "gateway paused",
    title: "gateway paused for 6 s (`SIGSTOP`), its client waits for it",
    limit: null,
    run: async (lab, { gate }) => {
      lab.gate(gate).process.signal("SIGSTOP");
      await sleep(6000);
      lab.gate(gate).process.signal("SIGCONT");
    },
  },
  {
    name: "gateway stopped",
    title: "gateway stopped in good order (`SIGTERM`) and started",
    limit: { text: "no error", noError: true },
    run: async (lab, { gate }) => {
      await lab.gate(gate).process.stop();
      await lab.startGate(gate);
    },
  },
  {
    name: "gateway cut off",
    title: "gateway cut from all NATS servers for 5 s",
    limit: { text: "no error", noError: true },
    run: async (lab, { gate }) => {
      for (const server of servers) await lab.network.part(gate, server);
      await sleep(5000);
      await lab.network.heal();
      await sleep(4000);
    },
  },
];

const nodeFailures: readonly Failure[] = [
  {
    name: "storage node killed",
    title: "storage node killed, another replica alive",
    limit: { text: "no read above 1 s", readMs: 1000, noError: true },
    run: async (lab) => {
      for (const node of nodeNames) {
        await lab.node(node).kill();
        await sleep(2000);
        await lab.startNode(node);
        await sleep(1000);
      }
    },
  },
  {
    name: "storage node paused",
    title: "storage node paused for 3 s",
    limit: { text: "no read above 1 s", readMs: 1000, noError: true },
    run: async (lab) => {
      for (const node of nodeNames) {
        lab.node(node).signal("SIGSTOP");
        await sleep(3000);
        lab.node(node).signal("SIGCONT");
        await sleep(1000);
      }
    },
  },
  {
    name: "storage node cut off",
    title: "storage node cut from all NATS servers for 3 s",
    limit: { text: "no read above 1 s", readMs: 1000, noError: true },
    run: async (lab) => {
      for (const server of servers) await lab.network.part(nodeNames[0], server);
      await sleep(3000);
      await lab.network.heal();
    },
  },
];

const serverFailures: readonly Failure[] = [
  {
    name: "log leader killed",
    title: "log leader killed (`kill -9`)",
    limit: { text: "I/O again in 8 s", readMs: 8000, writeMs: 8000, noError: true },
    run: async (lab) => {
      const leader = await lab.logLeader();
      await leader?.kill();
      await sleep(9000);
      await leader?.start();
    },
  },
  {
    name: "log leader cut off",
    title: "log leader cut from the other servers for 8 s",
    limit: { text: "no error", noError: true },
    run: async (lab) => {
      const leader = await lab.logLeader();
      const name = servers[lab.servers.nodes.findIndex((node) => node === leader)] ?? servers[0];
      for (const other of servers) if (other !== name) await lab.network.part(name, other);
      await sleep(8000);
      await lab.network.heal();
      await sleep(6000);
    },
  },
  {
    name: "quorum lost",
    title: "two of three NATS servers killed, started again after 5 s",
    limit: { text: "no error", noError: true },
    run: async (lab) => {
      const killed = lab.servers.nodes.slice(0, 2);
      await Promise.all(killed.map(async (server) => server.kill()));
      await sleep(5000);
      await Promise.all(killed.map(async (server) => server.start()));
      await sleep(8000);
    },
  },
  {
    name: "rolling upgrade",
    title: "every process stopped and started, one by one",
    limit: { text: "no error", noError: true },
    run: async (lab, client) => {
      for (const server of lab.servers.nodes) {
        await server.stop();
        await server.start();
      }
      for (const node of nodeNames) {
        await lab.node(node).stop();
        await lab.startNode(node);
      }
      const first = client.gate;
      for (const gate of first === "gate-1"
        ? (["gate-2", "gate-1"] as const)
        : (["gate-1", "gate-2"] as const)) {
        await lab.gate(gate).process.stop();
        await lab.startGate(gate);
      }
    },
  },
];

const unnoticed = { text: "nothing above 1 s", readMs: 1000, writeMs: 1000, noError: true } as const;

const archiveFailures: readonly Failure[] = [
  {
    name: "bucket cut off",
    title: "bucket cut off from both archivers for 8 s",
    limit: unnoticed,
    needsPast: true,
    run: async (lab) => {
      for (const keeper of keeperNames) await lab.network.part(keeper, "bucket");
      await sleep(8000);
      await lab.network.heal();
      await sleep(2000);
    },
  },
  {
    name: "bucket killed",
    title: "bucket killed (`kill -9`), started again after 5 s",
    limit: unnoticed,
    needsPast: true,
    run: async (lab) => {
      await lab.past.bucket.kill();
      await sleep(5000);
      await lab.past.bucket.restart();
      await sleep(2000);
    },
  },
  {
    name: "archiver killed",
    title: "archiver killed, another one alive",
    limit: unnoticed,
    needsPast: true,
    run: async (lab) => {
      const keeper = await lab.past.holder(volume);
      await lab.past.keeper(keeper).kill();
      await sleep(5000);
      await lab.startKeeper(keeper);
      await sleep(1000);
    },
  },
  {
    name: "archiver paused",
    title: "archiver paused for 6 s, another one takes over meanwhile",
    limit: unnoticed,
    needsPast: true,
    run: async (lab) => {
      const keeper = lab.past.keeper(await lab.past.holder(volume));
      keeper.signal("SIGSTOP");
      await sleep(6000);
      keeper.signal("SIGCONT");
      await sleep(1000);
    },
  },
];

export const failures: readonly Failure[] = [
  ...gatewayFailures,
  ...nodeFailures,
  ...serverFailures,
  ...archiveFailures,
];
