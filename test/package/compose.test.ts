// docker-compose.yml as compose itself reads it (the library of `docker compose config`), and the environment files of stores:
// versions pinned, health checked, limited, without rights, on loopback, secrets from files; and the NATS configuration in a real server.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { checkServers } from "#shared/adapters/write-log/jetstream-servers.ts";
import { parseBucketUrl } from "#shared/domain/bucket-url.ts";
import { serverBinary, serverSources } from "../../scripts/test-server-binary.ts";
import { freePorts } from "../tools/free-port.ts";
import { repositoryDir } from "../tools/varve-process.ts";

const exec = promisify(execFile);

interface Service {
  readonly image: string;
  readonly profiles?: readonly string[];
  readonly user?: string;
  readonly read_only?: boolean;
  readonly restart?: string;
  readonly cap_drop?: readonly string[];
  readonly security_opt?: readonly string[];
  readonly command?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly ports?: readonly { readonly host_ip?: string }[];
  readonly secrets?: readonly { readonly source: string }[];
  readonly healthcheck?: { readonly test?: readonly string[] };
  readonly volumes?: readonly { readonly type: string; readonly source: string; readonly target: string }[];
  readonly deploy?: {
    readonly resources?: { readonly limits?: { readonly cpus?: string; readonly memory?: string } };
  };
  readonly build?: { readonly dockerfile?: string; readonly dockerfile_inline?: string };
}

interface Model {
  readonly services: Readonly<Record<string, Service>>;
  readonly secrets: Readonly<Record<string, { readonly file?: string }>>;
  readonly volumes: Readonly<Record<string, unknown>>;
}

async function settingsOf(file: string): Promise<Record<string, string>> {
  const lines = (await readFile(join(repositoryDir, file), "utf8")).split("\n");
  const settings = lines.filter((line) => line !== "" && !line.startsWith("#"));
  return Object.fromEntries(
    settings.map((line) => [line.split("=", 1)[0] ?? "", line.slice(line.indexOf("=") + 1)]),
  );
}

/** With the defaults of all variables: this program knows no others. */
async function readModel(): Promise<Model> {
  const compose = await serverBinary("compose-spec");
  const { stdout } = await exec(compose, ["--format", "json", composeFile]);
  return JSON.parse(stdout) as Model;
}

const composeFile = join(repositoryDir, "docker-compose.yml");
const text = await readFile(composeFile, "utf8");
const model = await readModel();
const { services, secrets, volumes } = model;

const started = (profiles: string): string[] =>
  Object.entries(services)
    .filter(
      ([, { profiles: own = [] }]) =>
        own.length === 0 || own.some((one) => profiles.split(",").includes(one)),
    )
    .map(([name]) => name)
    .sort();

describe("docker-compose.yml", () => {
  test("starts one machine by default, and a cluster of three servers, three nodes and two gateways when asked", async () => {
    const { COMPOSE_PROFILES: usual = "" } = await settingsOf(".env");
    expect(started(usual)).toEqual(["seaweedfs", "varve"]);
    const cluster = [
      "api",
      "archiver",
      "gateway-1",
      "gateway-2",
      "nats-1",
      "nats-2",
      "nats-3",
      "seaweedfs",
      "storage-1",
      "storage-2",
      "storage-3",
    ];
    expect(started("cluster")).toEqual(cluster);
    // Who reads the past reads it where the archiver keeps it.
    const bucketOf = (name: string): string => services[name]?.environment?.["VARVE_BUCKET"] ?? "none";
    const readers = ["archiver", "api", "gateway-1", "gateway-2", "storage-1", "storage-2", "storage-3"].map(
      bucketOf,
    );
    expect(new Set(readers)).toEqual(new Set(["s3://varve/cluster?endpoint=http://seaweedfs:8333"]));
  });

  test("gives no service more than it needs", async () => {
    for (const [name, service] of Object.entries(services)) {
      expect(service, name).toMatchObject({
        read_only: true,
        restart: "unless-stopped",
        cap_drop: ["ALL"],
        security_opt: ["no-new-privileges:true"],
        user: expect.stringMatching(/^[1-9]\d+:[1-9]\d+$/),
        image: expect.stringMatching(/:\d+\.\d+(\.\d+)?(-[a-z]+)?$/),
        healthcheck: { test: expect.arrayContaining(["CMD"]) },
        deploy: { resources: { limits: { cpus: expect.any(String), memory: expect.any(String) } } },
      });
      for (const { host_ip } of service.ports ?? []) expect(host_ip, name).toBe("127.0.0.1");
      for (const volume of service.volumes ?? []) {
        expect(volume, name).toMatchObject({ type: "volume" });
        expect(Object.keys(volumes)).toContain(volume.source);
      }
    }
    expect(services["varve"]?.volumes).toMatchObject([{ source: "varve-data", target: "/var/lib/varve" }]);
  });

  test("takes every secret from a file that git does not know, and publishes where it is told", async () => {
    for (const { file } of Object.values(secrets)) expect(file).toContain("/infra/secrets/");
    await expect(
      exec("git", ["check-ignore", "infra/secrets/nats-password"], { cwd: repositoryDir }),
    ).resolves.toBeDefined();
    for (const [name, { environment = {} }] of Object.entries(services)) {
      const bare = Object.keys(environment).filter(
        (key) => /SECRET|PASSWORD|ACCESS_KEY/.test(key) && !key.endsWith("_FILE"),
      );
      expect(bare, name).toEqual([]);
    }
    const published = [...text.matchAll(/^ +(?:- |ports: \[)"(.*:\d+)"\]?$/gm)].map(
      (match) => match[1] ?? "",
    );
    expect(published).toHaveLength(5);
    for (const port of published)
      expect(port).toMatch(/^\$\{VARVE_PUBLISH:-127\.0\.0\.1\}:\$\{VARVE_[A-Z0-9_]+_PORT:-\d+\}:\d+$/);
  });

  test("runs this version on the Node that is pinned", async () => {
    const own = JSON.parse(await readFile(join(repositoryDir, "package.json"), "utf8")) as {
      version: string;
      dependencies: Record<string, string>;
    };
    expect(services["varve"]?.image).toBe(`varve:${own.version}`);
    const dockerfile = await readFile(join(repositoryDir, "infra/docker/Dockerfile"), "utf8");
    const bases = [...dockerfile.matchAll(/^FROM (\S+)/gm)].map((match) => match[1]);
    expect(new Set(bases)).toEqual(new Set([`node:${own.dependencies["node"]}-bookworm-slim`]));
    const nats = serverSources["nats-server"].version.slice(1);
    expect(services["nats-1"]?.build?.dockerfile_inline).toContain(`FROM nats:${nats}-alpine\n`);
  });

  test.each(["seaweedfs", "minio", "rustfs", "garage", "aws"])(
    "changes to the bucket of infra/s3/%s.env",
    async (store) => {
      const {
        COMPOSE_PROFILES: profiles = "",
        VARVE_BUCKET: bucket = "",
        ...others
      } = await settingsOf(`infra/s3/${store}.env`);
      expect(others).toEqual({});
      expect(started(profiles)).toEqual(store === "seaweedfs" ? ["seaweedfs", "varve"] : ["varve"]);
      expect(parseBucketUrl(bucket)).toMatchObject({ kind: "s3" });
      const usual = services["varve"]?.environment?.["VARVE_BUCKET"];
      expect(text).toContain(`VARVE_BUCKET: \${VARVE_BUCKET:-${usual}}\n`);
      expect(usual === bucket).toBe(store === "seaweedfs");
    },
  );

  test("has an environment file for every store that is tested here", async () => {
    const files = (await readdir(join(repositoryDir, "infra/s3"))).filter((name) => name.endsWith(".env"));
    expect(files.sort()).toEqual(["aws.env", "garage.env", "minio.env", "rustfs.env", "seaweedfs.env"]);
  });
});

describe("infra/nats/nats.conf", () => {
  test("makes a server that a log may be kept on, for who has the password", async () => {
    const directory = await mkdtemp(join(tmpdir(), "varve-nats-conf-"));
    const [client = 0, monitor = 0] = await freePorts(2);
    await cp(join(repositoryDir, "infra/nats"), directory, { recursive: true });
    const conf = await readFile(join(directory, "nats.conf"), "utf8");
    const here = conf
      .replace("port: 4222", `host: 127.0.0.1, port: ${client}`)
      .replace("http_port: 8222", `http: "127.0.0.1:${monitor}"`)
      .replace("store_dir: /data", `store_dir: "${directory}/data"`);
    await writeFile(join(directory, "nats.conf"), here);
    await writeFile(join(directory, "cluster.conf"), "");
    const server = spawn(await serverBinary("nats-server"), ["--config", join(directory, "nats.conf")], {
      env: { NATS_NAME: "nats-1", VARVE_NATS_PASSWORD: "v123" },
      stdio: "ignore",
    });
    try {
      const monitors = [`http://127.0.0.1:${monitor}`];
      await expect.poll(() => checkServers(["nats-1"], { monitors }), { timeout: 20_000 }).toBeUndefined();
      const facts = (await (await fetch(`${monitors[0]}/varz`)).json()) as Record<string, unknown>;
      expect(facts).toMatchObject({ auth_required: true, max_payload: 1_048_576 });
    } finally {
      server.kill("SIGTERM");
      await once(server, "close");
      await rm(directory, { recursive: true });
    }
  });
});
