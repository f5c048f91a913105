// What the tests of a cluster's past share: a lab with a directory as bucket, archivers with a failpoint, where each volume's archive and
// log stand, and the disk as somebody reads it out of the bucket who knows nothing of Varve (test/oracle/read_bucket.py).
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { JetStreamLogFollower } from "#shared/adapters/write-log/jetstream-follower.ts";
import type { ArchiveRecord } from "#shared/domain/cluster.ts";
import type { LogEnd } from "#shared/ports/log-follower.ts";
import { type ClusterConnection, openCluster } from "#shared/shell/cluster-connection.ts";
import { type ClusterProcess, Lab, sleep } from "../tools/cluster-process.ts";
import { freePort } from "../tools/free-port.ts";
import { NatsServers } from "../tools/nats-server.ts";
import type { NbdClient } from "../tools/nbd-client.ts";
import { run } from "../tools/varve-command.ts";
import { repositoryDir } from "../tools/varve-process.ts";

export const MiB = 1024 * 1024;

export interface ArchiverPlace {
  readonly process: ClusterProcess;
  readonly health: number;
}

export class PastLab {
  readonly servers: NatsServers;
  readonly lab: Lab;
  readonly bucket: string;

  private constructor(servers: NatsServers) {
    this.servers = servers;
    this.lab = new Lab(servers);
    this.bucket = join(this.lab.directory, "bucket");
    mkdirSync(this.bucket);
  }

  static async start(): Promise<PastLab> {
    return new PastLab(await NatsServers.start());
  }

  get bucketUrl(): string {
    return `file://${this.bucket}`;
  }

  async archiver(name: string, failpoint = ""): Promise<ArchiverPlace> {
    const health = await freePort();
    const settings = { bucket: this.bucketUrl, health: `127.0.0.1:${health}` };
    const environment = {
      VARVE_TEST_FAILPOINT: failpoint,
      VARVE_TEST_GRACE_MS: "0",
      VARVE_TEST_SEGMENT_MS: "1500",
      VARVE_TEST_BASE_BYTES: `${24 * MiB}`,
    };
    return { process: await this.lab.start("archiver", name, settings, environment), health };
  }

  /** What the archiver of the lab's volume says, as this process sees it; null: nothing yet. */
  async report({ health }: ArchiverPlace): Promise<ArchiveRecord | null> {
    const { detail } = await this.lab.readiness(health);
    return (detail as { volumes: readonly ArchiveRecord[] }).volumes[0] ?? null;
  }

  /** Resolves when everything that is in the log now is held in the bucket. */
  async untilHeld(archiver: ArchiverPlace, volumeId: string, timeoutMs = 90_000): Promise<number> {
    const lastLsn = (await this.logEnd(volumeId))?.lastLsn ?? 0;
    await until(async () => ((await this.report(archiver))?.heldLsn ?? 0) >= lastLsn, timeoutMs, "is held");
    return lastLsn;
  }

  async logEnd(volumeId: string): Promise<LogEnd | null> {
    const servers = { monitors: this.servers.monitors };
    const clock = new SystemClock();
    return await this.#looked(clock, async ({ connection }) => {
      const parts = { connection, clock, random: new SystemRandom(), volumeId, replicas: 1 };
      return await new JetStreamLogFollower({ ...parts, servers }).end();
    });
  }

  /** The catalogue has nothing of it any more: only the bucket has. */
  async isGone(volumeId: string): Promise<boolean> {
    return await this.#looked(
      new SystemClock(),
      async ({ catalog }) => (await catalog.fetch(volumeId)) === null,
    );
  }

  async #looked<T>(clock: SystemClock, look: (cluster: ClusterConnection) => Promise<T>): Promise<T> {
    const { addresses, monitors } = this.servers;
    const nats = { servers: addresses, monitors, replicas: 1 };
    const cluster = await openCluster(nats, "test", clock, () => undefined);
    try {
      return await look(cluster);
    } finally {
      await cluster.close();
    }
  }

  /** The disk at a point, by the reader that shares no code with Varve. */
  async export(volume: string, point: string): Promise<Buffer> {
    const out = join(this.lab.directory, "exported.raw");
    const reader = join(repositoryDir, "test", "oracle", "read_bucket.py");
    const result = await run("/usr/bin/python3", [reader, this.bucket, "export", volume, point, out]);
    if (result.code !== 0) throw new Error(`read_bucket.py: exit ${result.code}\n${result.stderr}`);
    return readFileSync(out);
  }

  async close(): Promise<void> {
    await this.lab.close();
    await this.servers.stop();
  }
}

export async function readWhole(client: NbdClient, sizeBytes: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for (let at = 0; at < sizeBytes; at += 4 * MiB) {
    pieces.push(await client.read(at, Math.min(4 * MiB, sizeBytes - at)));
  }
  return Buffer.concat(pieces);
}

export async function until(
  condition: () => Promise<boolean>,
  timeoutMs: number,
  what: string,
): Promise<void> {
  const endMs = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > endMs) throw new Error(`it is not so after ${timeoutMs} ms: ${what}`);
    await sleep(100);
  }
}
