// The past of the nemesis' lab: an S3 server in a network namespace of its own, two archivers, an api that is asked for points, rollbacks and
// clones, and the judge of what is stored: a copy of the bucket, folded by a reader that shares no code with Varve
// (test/oracle/read_bucket.py). Called by nemesis-lab.ts.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { openObjectStore } from "#shared/adapters/object-store/open-object-store.ts";
import type { ArchiveRecord } from "#shared/domain/cluster.ts";
import type { ClusterProcess, Lab } from "../tools/cluster-process.ts";
import { freePort } from "../tools/free-port.ts";
import type { NamespaceNetwork } from "../tools/lab-network.ts";
import { S3Server, type S3ServerName } from "../tools/s3-servers.ts";
import { run } from "../tools/varve-command.ts";
import { repositoryDir } from "../tools/varve-process.ts";
import { NemesisApi } from "./nemesis-api.ts";

export const keeperNames = ["keep-1", "keep-2"] as const;
export type KeeperName = (typeof keeperNames)[number];

/** What an archiver of the lab dies at. */
export const archiverSteps = ["seal", "upload", "publish", "release"] as const;

/** A base is due after so much log: what went cold can leave a node behind the next one. */
export const baseBytes = 8 * 1024 * 1024;

interface Keeper {
  readonly process: ClusterProcess;
  readonly readiness: string;
}

export class NemesisPast {
  readonly bucket: S3Server;
  readonly api: NemesisApi;
  readonly #lab: Lab;
  readonly #network: NamespaceNetwork;
  readonly #keepers = new Map<KeeperName, Keeper>();

  private constructor(lab: Lab, network: NamespaceNetwork, bucket: S3Server) {
    this.#lab = lab;
    this.#network = network;
    this.bucket = bucket;
    this.api = new NemesisApi(lab, network.place("front").host, bucket);
  }

  static async open(lab: Lab, network: NamespaceNetwork, kind: S3ServerName): Promise<NemesisPast> {
    return new NemesisPast(lab, network, await S3Server.start(kind, network.place("bucket")));
  }

  /** `failpoint`: it kills itself the first time it comes there. */
  async start(
    name: KeeperName,
    environment: Readonly<Record<string, string>>,
    failpoint = "",
  ): Promise<void> {
    const health = `${this.#network.place(name).host}:${await freePort()}`;
    const env = {
      ...environment,
      ...this.bucket.env,
      VARVE_TEST_FAILPOINT: failpoint,
      VARVE_TEST_SEGMENT_MS: "1500",
      VARVE_TEST_SETTLE_MS: "1000",
      VARVE_TEST_BASE_BYTES: String(baseBytes),
    };
    const process = await this.#lab.start("archiver", name, { bucket: this.bucket.url(), health }, env);
    this.#keepers.set(name, { process, readiness: `http://${health}/readyz` });
  }

  keeper(name: KeeperName): ClusterProcess {
    const found = this.#keepers.get(name);
    if (found === undefined) throw new Error(`no archiver ${name}`);
    return found.process;
  }

  get processes(): readonly ClusterProcess[] {
    return [...this.#keepers.values()].map(({ process }) => process).concat(this.api.processes);
  }

  /** Where the archive of a volume's log stands, by the archiver that knows most; null: nowhere yet. */
  async record(volume: string): Promise<ArchiveRecord | null> {
    let best: ArchiveRecord | null = null;
    for (const { readiness } of this.#keepers.values()) {
      const answer = await fetch(readiness, { signal: AbortSignal.timeout(2000) }).then(
        async (response) => (await response.json()) as KeeperReadiness,
        () => null,
      );
      const record = answer?.detail.volumes.find((one) => one.volume === volume) ?? null;
      if (record !== null && record.heldLsn >= (best?.heldLsn ?? 0)) best = record;
    }
    return best;
  }

  /** Which archiver has the volume now, or the first. */
  async holder(volume: string): Promise<KeeperName> {
    const record = await this.record(volume);
    return keeperNames.find((name) => name === record?.archiver) ?? keeperNames[0];
  }

  /** The disk at that LSN by what the bucket has, and nothing else. */
  async fold(volume: string, lsn: number): Promise<Buffer> {
    const copy = join(this.#lab.directory, "bucket-copy");
    await this.#copyTo(copy);
    const out = join(this.#lab.directory, "folded.raw");
    const reader = join(repositoryDir, "test", "oracle", "read_bucket.py");
    const result = await run("/usr/bin/python3", [reader, copy, "export", volume, `lsn:${lsn}`, out]);
    if (result.code !== 0)
      throw new Error(`read_bucket.py: exit ${result.code}\n${result.stdout}${result.stderr}`);
    return readFileSync(out);
  }

  /** What is there already was copied before: objects never change. */
  async #copyTo(directory: string): Promise<void> {
    const dependencies = {
      clock: new SystemClock(),
      random: new SystemRandom(),
      environment: this.bucket.env,
    };
    const store = await openObjectStore(this.bucket.url(), dependencies);
    try {
      for await (const { key } of store.list("")) {
        const path = join(directory, key);
        if (existsSync(path)) continue;
        const content = await store.get(key);
        if (content === null) continue; // collected since it was listed
        mkdirSync(dirname(path), { recursive: true });
        writeFileSync(path, content);
      }
    } finally {
      await store.close();
    }
  }

  async close(): Promise<void> {
    await this.bucket.stop();
  }
}

interface KeeperReadiness {
  readonly detail: { readonly volumes: readonly (ArchiveRecord & { readonly volume: string })[] };
}
