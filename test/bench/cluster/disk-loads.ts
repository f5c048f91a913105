// Loads on whole disks of a cluster: NBD clients of a gateway whose volume has replicas on storage nodes of this host, the same over
// the bus as between machines, and beside them one machine's `varve up` and plain NATS request/reply. One figure a call. Caller: bench.ts.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { jetstreamManager } from "@nats-io/jetstream";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { NatsMessageBus } from "#shared/adapters/message-bus/nats.ts";
import { connectNats } from "#shared/adapters/nats/connect.ts";
import { RemoteReplica } from "../../../services/gateway/engine/remote-replica.ts";
import { Lab, sleep } from "../../tools/cluster-process.ts";
import { FioRun, runFio } from "../../tools/fio.ts";
import { freePort } from "../../tools/free-port.ts";
import { nbdUri, VarveProcess } from "../../tools/varve-process.ts";
import { type Load, type Rate, rateOf } from "./log-loads.ts";
import { lookAtProcesses, type ProcessorUse, processorUse } from "./processor-use.ts";

const volume = "disk0";
const sizeBytes = 256 * 2 ** 20;
const nodes = ["shelf-1", "shelf-2"];
/** Replicas apply what was written, the overlay empties, grants are given. */
const settleMs = 4000;
/** fio's ramp, and time for it to begin. */
const rampMs = 1000;
const marginMs = 300;

function fioArguments(uri: string, load: Load, pattern: "read" | "randread" | "write"): readonly string[] {
  const size = [`--rw=${pattern}`, `--bs=${load.bytes}`, `--iodepth=${load.depth}`, `--size=${sizeBytes}`];
  const time = [
    "--time_based",
    `--runtime=${load.seconds}`,
    `--ramp_time=${rampMs / 1000}`,
    "--norandommap",
    "--randrepeat=0",
  ];
  return ["--name=bench", "--ioengine=nbd", `--uri=${uri}`, ...size, ...time];
}

async function fioRate(uri: string, load: Load, pattern: "read" | "randread" | "write"): Promise<Rate> {
  const [job] = await runFio(fioArguments(uri, load, pattern), 60_000);
  if (job === undefined) throw new Error("fio says nothing");
  return pattern === "write" ? job.write.iops : job.read.iops;
}

async function fill(uri: string): Promise<void> {
  const size = ["--rw=write", "--bs=1M", "--iodepth=8", `--size=${sizeBytes}`];
  await runFio(["--name=fill", "--ioengine=nbd", `--uri=${uri}`, ...size], 120_000);
  await sleep(settleMs);
}

interface Disk {
  readonly uri: string;
  readonly volumeId: string;
}

async function onCluster<T>(load: Load, use: (disk: Disk) => Promise<T>): Promise<T> {
  const lab = new Lab(load.servers);
  // The catalogue outlives a lab: nodes keep this volume only.
  const only = `disk-${new SystemRandom().hex(4)}`;
  try {
    for (const node of nodes) await lab.storage(node, { only });
    const volumeId = await lab.createVolume(only, sizeBytes, nodes);
    const { port } = await lab.gateway("gate");
    try {
      return await use({ uri: nbdUri(`127.0.0.1:${port}`, only), volumeId });
    } finally {
      await lab.close();
      await removeLog(load, volumeId);
    }
  } finally {
    await lab.close();
  }
}

/** Each log reserves its whole room on the servers: a few pairs later there would be none left. */
async function removeLog({ servers }: Load, volumeId: string): Promise<void> {
  const connection = await connectNats({ servers: servers.addresses, name: "bench" });
  const manager = await jetstreamManager(connection);
  await manager.streams.delete(`varve-log-${volumeId}`);
  await connection.close();
}

/**
 * Through NBD, with two replicas that apply what is written; and what each process took of the processors in the middle of the run, so that
 * starts and ends do not count.
 */
export async function clusterWritingUse(load: Load): Promise<{ rate: Rate; use: readonly ProcessorUse[] }> {
  return await onCluster(load, async ({ uri }) => {
    const run = new FioRun(fioArguments(uri, load, "write"), 60_000);
    const jobs = run.jobs();
    await sleep(rampMs + marginMs);
    const before = lookAtProcesses();
    await sleep(load.seconds * 1000 - 2 * marginMs);
    const after = lookAtProcesses();
    const rate = (await jobs)[0]?.write.iops ?? 0;
    return { rate, use: processorUse(before, after, rate * load.bytes) };
  });
}

/** Through NBD, from a replica on this host. */
export function clusterReading(pattern: "read" | "randread"): (load: Load) => Promise<Rate> {
  return async (load) =>
    await onCluster(load, async ({ uri }) => {
      await fill(uri);
      return await fioRate(uri, load, pattern);
    });
}

/** The same of `varve up`. */
export function oneMachineReading(pattern: "read" | "randread"): (load: Load) => Promise<Rate> {
  return async (load) => {
    const dataDir = mkdtempSync(join(tmpdir(), "varve-bench-"));
    const nbd = [`127.0.0.1:${await freePort()}`];
    const process = await VarveProcess.start({ dataDir, volumes: [`${volume}:${sizeBytes}`], nbd });
    try {
      await fill(process.uri(volume));
      return await fioRate(process.uri(volume), load, pattern);
    } finally {
      await process.kill9();
      rmSync(dataDir, { recursive: true, force: true });
    }
  };
}

/** What a gateway on another machine asks of a storage node, without NBD: the replica is read over the bus. */
export async function remoteReading(load: Load): Promise<Rate> {
  return await onCluster(load, async ({ uri, volumeId }) => {
    await fill(uri);
    const connection = await connectNats({ servers: load.servers.addresses, name: "bench" });
    const replica = new RemoteReplica({
      bus: new NatsMessageBus(connection),
      clock: new SystemClock(),
      volumeId,
      nodes,
      host: "elsewhere",
      logShare: () => 0,
      onFenced: (error) => {
        throw error;
      },
    });
    try {
      await replica.heard();
      const slab = { bytes: Buffer.alloc(load.bytes), address: 0 };
      const places = Math.floor(sizeBytes / load.bytes);
      return await rateOf(load, async () =>
        replica.read(slab, 0, load.bytes, Math.floor(Math.random() * places) * load.bytes),
      );
    } finally {
      await replica.abandon();
      await connection.close();
    }
  });
}

/** A responder on a thread of its own answers each request with so many bytes that are there already. */
export async function plainRequests(load: Load): Promise<Rate> {
  const subject = `plain-${new SystemRandom().hex(4)}`;
  const workerData = { servers: load.servers.addresses, subject, bytes: load.bytes };
  const responder = new Worker(new URL("plain-responder.ts", import.meta.url), { workerData });
  const connection = await connectNats({ servers: load.servers.addresses, name: "bench" });
  try {
    await new Promise((resolve, reject) => {
      responder.once("message", resolve);
      responder.once("error", reject);
    });
    const question = Buffer.alloc(64);
    return await rateOf(
      load,
      async () => void (await connection.request(subject, question, { timeout: 5000 })),
    );
  } finally {
    await connection.close();
    await responder.terminate();
  }
}
