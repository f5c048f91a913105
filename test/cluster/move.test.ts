// `varve volume move`, by real processes: killed at each of its steps, with writes by `varve up` in between. At every moment the disk is
// writable at one place at most, and at the end the cluster has every byte (docs/specs/move-into-cluster.md).
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { attach, type GatewayPlace, Lab } from "../tools/cluster-process.ts";
import { freePort } from "../tools/free-port.ts";
import { NatsServers } from "../tools/nats-server.ts";
import { NbdClient } from "../tools/nbd-client.ts";
import { type CommandResult, varve } from "../tools/varve-command.ts";
import { VarveProcess } from "../tools/varve-process.ts";

const MiB = 2 ** 20;
const sizeBytes = 24 * MiB;
let servers: NatsServers;
let lab: Lab;
let api = "";
let dataDir = "";
let gates: readonly GatewayPlace[] = [];
/** What the disk must hold. */
let wanted = Buffer.alloc(sizeBytes);

beforeEach(async () => {
  servers = await NatsServers.start();
  lab = new Lab(servers);
  const http = `127.0.0.1:${await freePort()}`;
  api = `http://${http}`;
  await lab.start("api", "front", { http, health: "off" });
  await lab.storage("shelf");
  await lab.storage("attic");
  gates = [await lab.gateway("gate-1"), await lab.gateway("gate-2")];
  dataDir = join(mkdtempSync(join(tmpdir(), "varve-move-")), "data");
  wanted = Buffer.alloc(sizeBytes);
});

afterEach(async () => {
  await lab.close();
  await servers.stop();
  rmSync(join(dataDir, ".."), { recursive: true, force: true });
});

async function move(failpoint: string, gate: number, ...more: readonly string[]): Promise<CommandResult> {
  const port = gates[gate]?.port ?? 0;
  return await varve(
    ["volume", "move", "disk0", "--data", dataDir, "--api", api, "--gateway", `127.0.0.1:${port}`, ...more],
    { VARVE_TEST_FAILPOINT: failpoint },
  );
}

const killedAt = async (failpoint: string, gate: number): Promise<void> =>
  expect(move(failpoint, gate, "--replicas", "2")).rejects.toMatchObject({ signal: "SIGKILL" });

/** Serves the data directory while `work` runs; ended by kill -9, as a crash would. */
async function whileUp<T>(work: (port: number, server: VarveProcess) => Promise<T>): Promise<T> {
  const port = await freePort();
  const server = await VarveProcess.start({ dataDir, nbd: [`127.0.0.1:${port}`], volumes: ["other:1M"] });
  try {
    return await work(port, server);
  } finally {
    await server.kill9();
  }
}

async function write(client: NbdClient, offset: number, bytes: Buffer): Promise<void> {
  await client.write(offset, bytes);
  bytes.copy(wanted, offset);
}

/** Nobody but the data directory serves it: not the cluster, whatever the name. */
async function isOnlyHere(): Promise<void> {
  for (const { port } of gates) {
    await expect(NbdClient.connect(`127.0.0.1:${port}`, "disk0")).rejects.toThrow();
  }
  await whileUp(async (port) => {
    const client = await attach(port);
    expect((await client.read(0, sizeBytes)).equals(wanted)).toBe(true);
    await client.disconnect();
  });
}

test("a volume of varve up moves into the cluster, whatever kills the command and whenever", async () => {
  const started = await VarveProcess.start({
    dataDir,
    nbd: [`127.0.0.1:${await freePort()}`],
    volumes: [`disk0:${sizeBytes}`],
  });
  await started.stop();
  await whileUp(async (port) => {
    const client = await attach(port);
    await write(client, 0, Buffer.alloc(3 * MiB, 1));
    await write(client, 10 * MiB + 123, Buffer.alloc(MiB, 2));
    await write(client, sizeBytes - 77, Buffer.alloc(77, 3));
    // Durable, but perhaps in no image yet: the command applies the log.
    expect((await move("", 0)).stderr).toContain("is in use");
  });
  const looked = await move("", 0, "--replicas", "2", "--dry-run");
  expect([looked.code, looked.stdout]).toEqual([0, expect.stringContaining("nothing was changed")]);
  expect((await move("", 0, "--replicas", "3")).stderr).toContain("want as many storage nodes");

  await killedAt("move-arriving", 0);
  await isOnlyHere();
  expect((await move("", 0, "--replicas", "2", "--dry-run")).stdout).toContain("its move there was begun");
  const there = await varve(["volume", "list"], { VARVE_API: api });
  expect(there.stdout).toMatch(/disk0 .*busy/);
  expect((await varve(["volume", "set", "disk0", "--reads", "strict"], { VARVE_API: api })).stderr).toContain(
    "is being moved into the cluster",
  );
  await killedAt("move-copying:3", 0);
  await isOnlyHere();
  await whileUp(async (port) => {
    const client = await attach(port);
    await write(client, 0, Buffer.alloc(MiB, 4));
    await client.trim(MiB, MiB);
    wanted.fill(0, MiB, 2 * MiB);
    await write(client, 20 * MiB, Buffer.alloc(4096, 5));
    await client.flush();
  });
  await killedAt("move-copied", 1);
  await isOnlyHere();
  await killedAt("move-marked", 0);
  await whileUp(async (port, server) => {
    await expect.poll(() => server.output()).toContain(`volume disk0 was moved to ${api}`);
    await expect(NbdClient.connect(`127.0.0.1:${port}`, "disk0")).rejects.toThrow();
  });
  for (const { port } of gates) {
    await expect(NbdClient.connect(`127.0.0.1:${port}`, "disk0")).rejects.toThrow();
  }
  await killedAt("move-served", 0);
  const ended = await move("", 0, "--json");
  expect([ended.code, JSON.parse(ended.stdout)]).toEqual([0, expect.objectContaining({ moved: "disk0" })]);

  for (const { port } of gates) {
    const client = await attach(port);
    expect((await client.read(0, sizeBytes)).equals(wanted)).toBe(true);
    await client.write(5 * MiB, Buffer.alloc(4096, 6));
    Buffer.alloc(4096, 6).copy(wanted, 5 * MiB);
    await client.disconnect();
  }
  const refused = await varve(["volume", "create", "disk0", "--size", "1M", "--data", dataDir]);
  expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining(`was moved to ${api}`)]);
  expect((await varve(["volume", "delete", "disk0", "--data", dataDir])).code).toBe(0);
  expect(existsSync(join(dataDir, "volumes", "disk0"))).toBe(false);
  // The way back: its name is free again, for a disk that is filled from the file or from the cluster.
  const again = await varve(["volume", "create", "disk0", "--size", `${sizeBytes}`, "--data", dataDir]);
  expect(again.code).toBe(0);
  await whileUp(async (port) => (await attach(port, "other")).disconnect());
});
