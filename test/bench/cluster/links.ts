// Figures over links as a home has them: every part in a network namespace of its own with 1 Gb/s and, where the kernel has netem, 0.15 ms
// each way; R1 and R3, two replicas, an NBD client on a host of its own. Beside each stands what the bytes or the hops allow. Needs
// insideOwnNetwork(). Caller: bench.ts.
import { Lab } from "../../tools/cluster-process.ts";
import { type FioSide, runFio } from "../../tools/fio.ts";
import { NamespaceNetwork } from "../../tools/lab-network.ts";
import { NatsServers } from "../../tools/nats-server.ts";
import { nbdUri } from "../../tools/varve-process.ts";

export interface LinkRow {
  readonly title: string;
  readonly unit: "MB/s" | "ms p50";
  readonly figure: number;
  /** By the links alone. */
  readonly allowed: number;
}

export interface LinkResult {
  /** One way, on each link; 0: this kernel has no netem. */
  readonly delayMs: number;
  readonly rows: readonly LinkRow[];
}

const linkMBps = 125;
const nodes = ["shelf-1", "shelf-2"];
const parts = ["nats-1", "nats-2", "nats-3", ...nodes, "gate-1"];
const sizeBytes = 2 ** 30;

export async function measureLinks(seconds: number): Promise<LinkResult> {
  const network = await NamespaceNetwork.make();
  const delayMs = await network.homeLinks(parts);
  const rows: LinkRow[] = [];
  for (const replicas of [1, 3]) {
    const servers = await NatsServers.start({ servers: replicas, network });
    const lab = new Lab(servers, network);
    try {
      for (const name of nodes) await lab.storage(name);
      await lab.createVolume("disk0", sizeBytes, nodes);
      const { host, port } = await lab.gateway("gate-1");
      const uri = nbdUri(`${host}:${port}`, "disk0");
      const large = await written(uri, seconds, 1024, 8);
      const small = await written(uri, seconds, 4, 1);
      // R1: the one server sends each byte to both nodes. R3: the leader to two servers, whose links may serve the nodes.
      const copies = 2;
      // To a server and back, with R3 from it to the others and back, and from the gateway to the client.
      const [ways, dataHops] = replicas === 1 ? [3, 1] : [5, 2];
      rows.push(
        {
          title: `1 MiB sequential writes, depth 8, R${replicas}`,
          unit: "MB/s",
          figure: large.bytesPerSecond / 1e6,
          allowed: linkMBps / copies,
        },
        {
          title: `4 KiB random writes, depth 1, R${replicas}`,
          unit: "ms p50",
          figure: small.p50Us / 1000,
          allowed: ways * delayMs + dataHops * (4.096 / linkMBps),
        },
      );
    } finally {
      await lab.close();
      await servers.stop();
    }
  }
  return { delayMs, rows };
}

async function written(uri: string, seconds: number, kib: number, depth: number): Promise<FioSide> {
  const load = [`--rw=${depth === 1 ? "randwrite" : "write"}`, `--bs=${kib}k`, `--iodepth=${depth}`];
  const time = ["--time_based", `--runtime=${seconds}`, "--ramp_time=1", "--randrepeat=0", "--norandommap"];
  const size = [`--size=${sizeBytes}`, "--ioengine=nbd", `--uri=${uri}`];
  const [job] = await runFio(["--name=links", ...size, ...load, ...time], 60_000);
  if (job === undefined) throw new Error("fio says nothing");
  return job.write;
}
