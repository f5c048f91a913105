// What a user may set for the processes of a cluster: by flag, environment and file, in this order; every mistake is named with where
// it came from, and all of them at once.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { VarveError } from "#shared/domain/errors.ts";
import { readApiConfig, readGatewayConfig, readStorageConfig } from "#shared/shell/cluster-config.ts";
import { type KnownSetting, withConfigFile } from "#shared/shell/config-file.ts";

const directory = mkdtempSync(join(tmpdir(), "varve-config-"));
afterAll(() => rmSync(directory, { recursive: true }));

const known: readonly KnownSetting[] = [
  ...[
    "name",
    "health",
    "only",
    "advertise",
    "mdns",
    "nats-user",
    "nats-password-file",
    "nats-replicas",
    "log-max",
    "bucket",
  ].map((name) => ({ name, value: "X" })),
  ...["nats", "nats-monitor", "nbd", "pool"].map((name) => ({ name, value: "X", repeat: true })),
  { name: "json" },
  { name: "config", value: "FILE" },
];

const filed = (values: Record<string, string[]>, file?: unknown) => {
  const all = { ...values };
  if (file !== undefined) {
    const path = join(directory, "varve.json");
    writeFileSync(path, typeof file === "string" ? file : JSON.stringify(file));
    all["config"] = [path];
  }
  const source = {
    values: new Map(Object.entries(all)),
    sources: new Map(Object.keys(all).map((name) => [name, `--${name}`])),
  };
  return withConfigFile(source, known);
};
const mistakes = (read: () => unknown): string[] => {
  try {
    read();
  } catch (error) {
    if (error instanceof VarveError && error._tag === "ConfigError") {
      return error.message.split("\n").map((line) => line.replace(directory, "DIR"));
    }
    throw error;
  }
  return [];
};

describe("the configuration of cluster processes", () => {
  test("has defaults for everything but the pools of a storage node", () => {
    expect(readGatewayConfig(filed({ name: ["gate"] }))).toMatchObject({
      name: "gate",
      nats: { servers: ["127.0.0.1:4222"], monitors: ["http://127.0.0.1:8222"], replicas: 1 },
      health: { host: "127.0.0.1", port: 8081 },
      advertise: "127.0.0.1:10809",
      only: null,
      mdns: null,
    });
    const reached = { name: ["gate"], nbd: ["0.0.0.0:1"], mdns: ["10.0.0.5"] };
    expect(readGatewayConfig(filed(reached)).mdns).toEqual({
      onAddress: "10.0.0.5",
      address: "10.0.0.5",
      port: 1,
    });
    expect(readGatewayConfig(filed({ ...reached, advertise: ["10.0.0.9:2"] })).mdns).toEqual({
      onAddress: "10.0.0.5",
      address: "10.0.0.9",
      port: 2,
    });
    expect(mistakes(() => readStorageConfig(filed({ name: ["shelf"] })))).toEqual([
      "--pool: is missing; say where replicas are kept: --pool NAME:DIR[,quota=SIZE][,tag=TAG]",
    ]);
    expect(readApiConfig(filed({ name: ["api"] })).http).toEqual({
      kind: "tcp",
      host: "127.0.0.1",
      port: 8080,
    });
  });

  test("takes a file, and what is said elsewhere counts for more", () => {
    const file = {
      name: "shelf",
      nats: ["a:4222", "nats://b:4222"],
      "nats-replicas": 3,
      pool: "main:/srv/varve/,quota=500G,tag=ssd",
      health: "off",
      only: "disk0",
      bucket: "s3://lab/varve?endpoint=http://127.0.0.1:8333",
    };
    const config = readStorageConfig(filed({ only: ["disk1"] }, file));
    expect(config).toEqual({
      name: "shelf",
      nats: { servers: ["a:4222", "b:4222"], monitors: ["http://127.0.0.1:8222"], replicas: 3 },
      health: null,
      pools: [{ name: "main", directory: "/srv/varve", quotaBytes: 500 * 2 ** 30, tags: ["ssd"] }],
      only: "disk1",
      bucket: file.bucket,
      fillBytesPerSecond: null,
      imageBytesMax: null,
    });
  });

  test("every mistake is reported, of the file's form and of its values together", () => {
    const file = {
      name: "Gate.1",
      nbd: ["127.0.0.1:10809", "127.0.0.1:10809"],
      nats: "nowhere",
      "nats-replicas": 2,
      "nats-monitor": "8222",
      "log-max": ["1G", "2G"],
      colour: "blue",
      only: { not: "text" },
      json: "yes",
    };
    expect(mistakes(() => readGatewayConfig(filed({ "nats-password-file": ["/nowhere"] }, file)))).toEqual([
      "DIR/varve.json: log-max takes one value, not 2",
      expect.stringMatching(/^DIR\/varve.json: there is no setting "colour"; known: name, health, /),
      "DIR/varve.json: only is neither text, a number nor a list of them",
      expect.stringMatching(/^DIR\/varve.json: there is no setting "json"/),
      'DIR/varve.json: nbd: "127.0.0.1:10809" is given twice',
      `DIR/varve.json: name: "Gate.1" must be made of a-z, 0-9 and '-', and start with a letter or digit (lower case)`,
      'DIR/varve.json: nats: "nowhere" is neither HOST:PORT, [IPV6]:PORT nor unix:PATH',
      'DIR/varve.json: nats-monitor: "8222" is no URL; write http://HOST:8222',
      "DIR/varve.json: nats-replicas: 2 is even; use 1 or 3",
      "--nats-password-file: wants --nats-user, too",
      "--nats-password-file: /nowhere can't be read (ENOENT)",
    ]);
  });

  test("pools are named each by itself", () => {
    const pools = ["main", "b:/x,quota=much", "c:/x,colour=red,tag=A", "D:/y"];
    expect(mistakes(() => readStorageConfig(filed({ name: ["s"], pool: pools })))).toEqual([
      '--pool: "main" is not NAME:DIR; for example main:/srv/varve',
      '--pool: "b:/x,quota=much": "much" is not a size; write it like 500G',
      '--pool: "c:/x,colour=red,tag=A": there is no option "colour"; known: quota, tag',
      expect.stringContaining('the tag "A" must be made of'),
      expect.stringContaining('the name "D" must be made of'),
      "--pool: the directory /x is given twice",
    ]);
  });

  test("a file that is none is named with its place", () => {
    expect(mistakes(() => readApiConfig(filed({ name: ["a"] }, "{")))[0]).toMatch(
      /^DIR\/varve.json is not JSON: /,
    );
    expect(mistakes(() => readApiConfig(filed({ name: ["a"] }, [])))).toEqual([
      'DIR/varve.json is not a JSON object; for example {"name": "gate-1"}',
    ]);
    expect(mistakes(() => readApiConfig(filed({ name: ["a"], config: ["/nowhere"] })))).toEqual([
      "--config: /nowhere can't be read (ENOENT)",
    ]);
  });
});
