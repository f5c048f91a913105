/*
 * What a user may set for the processes of a cluster: gateway, storage, archiver, api (docs/specs/cluster.md). Values come from flags,
 * environment and file (config-file.ts); every mistake is reported, all together. Next: services/cli/commands/.
 */
import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import { parseBucketUrl } from "#shared/domain/bucket-url.ts";
import { parseByteSize } from "#shared/domain/byte-size.ts";
import { machineNameMistake } from "#shared/domain/cluster.ts";
import { limits } from "#shared/domain/limits.ts";
import { volumeNameMistake } from "#shared/domain/volume.ts";
import { ConfigReader, type MdnsConfig } from "./config.ts";
import type { FiledConfig } from "./config-file.ts";
import { addressText, type ListenAddress, parseListenAddress } from "./listen-address.ts";

export interface NatsConfig {
  /** host:port each. */
  readonly servers: readonly string[];
  readonly user?: string;
  readonly password?: string;
  /** Monitoring addresses, for the check of the servers' settings. */
  readonly monitors: readonly string[];
  /** Copies of streams and tables that are made now: 1 or 3. */
  readonly replicas: number;
}

export type HttpAddress = Extract<ListenAddress, { kind: "tcp" }>;

export interface ServiceConfig {
  readonly name: string;
  readonly nats: NatsConfig;
  /** Liveness and readiness; null: off. */
  readonly health: HttpAddress | null;
}

export interface GatewayConfig extends ServiceConfig {
  readonly nbd: readonly ListenAddress[];
  /** What other gateways tell clients. */
  readonly advertise: string;
  /** Null: it announces itself nowhere. */
  readonly mdns: MdnsConfig | null;
  readonly only: string | null;
  readonly payloadBytesMax: number;
  readonly logBytesMax: number;
  readonly connectionsMax: number;
  /** Null: points of volumes are not served. */
  readonly bucket: string | null;
}

export interface PoolConfig {
  readonly name: string;
  readonly directory: string;
  readonly quotaBytes: number | null;
  readonly tags: readonly string[];
}

export interface StorageConfig extends ServiceConfig {
  readonly pools: readonly PoolConfig[];
  readonly only: string | null;
  /** The archivers', to fill replicas from; null: from other nodes only. */
  readonly bucket: string | null;
  /** Bytes a second that filling one replica takes at most; null: no limit. */
  readonly fillBytesPerSecond: number | null;
  /** Of one tiered image. */
  readonly imageBytesMax: number | null;
}

export interface ArchiverConfig extends ServiceConfig {
  readonly bucket: string;
  readonly only: string | null;
}

export interface ApiConfig extends ServiceConfig {
  readonly http: HttpAddress;
  /** Null: new volumes keep no past. */
  readonly bucket: string | null;
}

export function readGatewayConfig(filed: FiledConfig): GatewayConfig {
  const reader = new ClusterConfigReader(filed, "gateway");
  const nbd = reader.nbd();
  const advertise = reader.advertise(nbd);
  const reached = parseListenAddress(advertise);
  const config = {
    mdns: reader.mdns(typeof reached === "string" ? nbd : [reached, ...nbd]),
    ...reader.service("127.0.0.1:8081"),
    nbd,
    bucket: reader.sharedBucket(),
    advertise,
    only: reader.onlyVolume(),
    payloadBytesMax: reader.size("payload-max", limits.payloadBytesMax, 80 * 2 ** 20, 16 * 2 ** 30),
    logBytesMax: reader.size("log-max", limits.logBytesMaxDefault, 4 * limits.logSegmentBytes, 2 ** 50),
    connectionsMax: reader.count("connections-max", limits.nbdConnectionsMax, 1, 65_536),
  };
  reader.finish();
  return config;
}

export function readStorageConfig(filed: FiledConfig): StorageConfig {
  const reader = new ClusterConfigReader(filed, "storage");
  const config = {
    ...reader.service("127.0.0.1:8082"),
    pools: reader.pools(),
    bucket: reader.sharedBucket(),
    only: reader.onlyVolume(),
    fillBytesPerSecond: reader.sizeOrNone("fill-rate", limits.bandwidthBytesPerSecondMin, 2 ** 50),
    imageBytesMax: reader.sizeOrNone("image-max", limits.imageBytesMaxLeast, 2 ** 50),
  };
  reader.finish();
  return config;
}

export function readArchiverConfig(filed: FiledConfig): ArchiverConfig {
  const reader = new ClusterConfigReader(filed, "archiver");
  const service = reader.service("127.0.0.1:8084");
  const bucket = reader.sharedBucket();
  if (bucket === null) {
    reader.mistake("bucket", "is missing; say where history goes: --bucket s3://BUCKET/PREFIX?endpoint=...");
  }
  const config = { ...service, bucket: bucket ?? "", only: reader.onlyVolume() };
  reader.finish();
  return config;
}

export function readApiConfig(filed: FiledConfig): ApiConfig {
  const reader = new ClusterConfigReader(filed, "api");
  const service = reader.service("127.0.0.1:8083");
  const http = reader.http();
  const bucket = reader.sharedBucket();
  if (http === null) reader.mistake("http", "an api process without an address does nothing");
  reader.finish();
  return { ...service, bucket, http: http ?? { kind: "tcp", host: "127.0.0.1", port: 8080 } };
}

class ClusterConfigReader extends ConfigReader {
  constructor(filed: FiledConfig, command: string) {
    super(filed, command, filed.mistakes);
  }

  service(defaultHealth: string): ServiceConfig {
    return { name: this.#name(), nats: this.#nats(), health: this.#health(defaultHealth) };
  }

  onlyVolume(): string | null {
    const name = this.one("only");
    if (name === undefined) return null;
    const mistake = volumeNameMistake(name);
    if (mistake !== null) this.mistake("only", `the volume name "${name}" ${mistake}`);
    return name;
  }

  /** The bucket that all processes of the cluster reach; null: none. */
  sharedBucket(): string | null {
    const text = this.one("bucket");
    if (text === undefined || text === "none") return null;
    const address = parseBucketUrl(text);
    if (typeof address === "string") this.mistake("bucket", `its URL ${address}`);
    return text;
  }

  advertise(nbd: readonly ListenAddress[]): string {
    const text = this.one("advertise");
    if (text !== undefined) {
      const address = this.address("advertise", text);
      return address === null ? "" : addressText(address);
    }
    return nbd[0] === undefined ? "" : addressText(nbd[0]);
  }

  pools(): readonly PoolConfig[] {
    const texts = this.all("pool") ?? [];
    if (texts.length === 0) {
      this.mistake("pool", "is missing; say where replicas are kept: --pool NAME:DIR[,quota=SIZE][,tag=TAG]");
    }
    if (texts.length > limits.poolsMax) this.mistake("pool", `at most ${limits.poolsMax} pools`);
    const pools = texts.flatMap((text) => this.#pool(text) ?? []);
    for (const field of ["name", "directory"] as const) {
      const seen = new Set<string>();
      for (const pool of pools) {
        if (seen.has(pool[field])) this.mistake("pool", `the ${field} ${pool[field]} is given twice`);
        seen.add(pool[field]);
      }
    }
    return pools;
  }

  #pool(text: string): PoolConfig | null {
    const [head = "", ...options] = text.split(",");
    const colon = head.indexOf(":");
    const [name, directory] = [head.slice(0, Math.max(0, colon)), head.slice(colon + 1)];
    if (colon <= 0 || directory === "") {
      this.mistake("pool", `"${text}" is not NAME:DIR; for example main:/srv/varve`);
      return null;
    }
    const nameMistake = machineNameMistake(name);
    if (nameMistake !== null) this.mistake("pool", `"${text}": the name "${name}" ${nameMistake}`);
    let quotaBytes: number | null = null;
    const tags: string[] = [];
    for (const option of options) {
      const [key, value = ""] = option.split("=", 2);
      if (key === "quota") {
        quotaBytes = parseByteSize(value);
        if (quotaBytes === null)
          this.mistake("pool", `"${text}": "${value}" is not a size; write it like 500G`);
      } else if (key === "tag" && machineNameMistake(value) === null) tags.push(value);
      else if (key === "tag")
        this.mistake("pool", `"${text}": the tag "${value}" ${machineNameMistake(value)}`);
      else this.mistake("pool", `"${text}": there is no option "${key}"; known: quota, tag`);
    }
    return { name, directory: directory.replace(/(.)\/+$/, "$1"), quotaBytes, tags };
  }

  #name(): string {
    const given = this.one("name");
    const name = given ?? hostname().toLowerCase().split(".")[0] ?? "";
    const mistake = machineNameMistake(name);
    if (mistake !== null) {
      const hint = given === undefined ? "; it is this machine's host name, give another by --name" : "";
      this.mistake("name", `"${name}" ${mistake}${hint}`);
    }
    return name;
  }

  #nats(): NatsConfig {
    const servers = (this.all("nats") ?? ["127.0.0.1:4222"]).flatMap((text) => {
      const address = this.address("nats", text.replace(/^nats:\/\//, ""));
      if (address?.kind === "unix") this.mistake("nats", `"${text}" is a unix socket; NATS is at HOST:PORT`);
      return address === null ? [] : [addressText(address)];
    });
    const monitors = this.all("nats-monitor") ?? ["http://127.0.0.1:8222"];
    for (const text of monitors) {
      if (!URL.canParse(text) || !/^https?:$/.test(new URL(text).protocol)) {
        this.mistake("nats-monitor", `"${text}" is no URL; write http://HOST:8222`);
      }
    }
    const replicas = this.count("nats-replicas", 1, 1, 5);
    if (replicas % 2 === 0) this.mistake("nats-replicas", `${replicas} is even; use 1 or 3`);
    const user = this.one("nats-user");
    const password = this.#password(user);
    return {
      servers,
      monitors: monitors.map((text) => text.replace(/\/+$/, "")),
      replicas,
      ...(user === undefined ? {} : { user }),
      ...(password === undefined ? {} : { password }),
    };
  }

  /** From a file, so that it stands neither in a command line nor in the environment. */
  #password(user: string | undefined): string | undefined {
    const path = this.one("nats-password-file");
    if (path === undefined) return undefined;
    if (user === undefined) this.mistake("nats-password-file", "wants --nats-user, too");
    try {
      return readFileSync(path, "utf8").trimEnd();
    } catch (cause) {
      this.mistake(
        "nats-password-file",
        `${path} can't be read (${String((cause as { code?: unknown }).code)})`,
      );
      return undefined;
    }
  }

  #health(fallback: string): HttpAddress | null {
    const text = this.one("health") ?? fallback;
    if (text === "off") return null;
    const address = this.address("health", text);
    if (address?.kind !== "unix") return address;
    this.mistake("health", `"${text}" is a unix socket; write HOST:PORT, or off`);
    return null;
  }
}
