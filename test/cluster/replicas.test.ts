// Replicas of real processes that are filled, added, moved, removed and compared, under load from the block checker and with kill -9 in
// the middle: nothing acknowledged is lost, files go only when others have what is in them.
import { existsSync, readFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { BlockChecker, describe as wording } from "../tools/block-checker.ts";
import { attach, type ClusterProcess, Lab, sleep } from "../tools/cluster-process.ts";
import { freePort } from "../tools/free-port.ts";
import { NatsServers } from "../tools/nats-server.ts";
import { varve as command } from "../tools/varve-command.ts";

const MiB = 2 ** 20;
const sizeBytes = 64 * MiB;
let servers: NatsServers;
let lab: Lab;
let api = "";

beforeEach(async () => {
  servers = await NatsServers.start();
  lab = new Lab(servers);
  const http = `127.0.0.1:${await freePort()}`;
  api = `http://${http}`;
  await lab.start("api", "front", { http, health: "off" });
});

afterEach(async () => {
  await lab.close();
  await servers.stop();
});

async function varve(...words: readonly string[]): Promise<{ readonly code: number; readonly text: string }> {
  const { code, stdout, stderr } = await command(words, { VARVE_API: api });
  return { code, text: code === 0 ? stdout : `${stdout}${stderr}` };
}

interface Row {
  readonly node: string;
  readonly condition: string;
  readonly leaving: boolean;
}

async function rows(): Promise<readonly Row[]> {
  const answer = await fetch(`${api}/v1/replicas`);
  return (await answer.json()) as readonly Row[];
}

async function placedOn(...nodes: readonly string[]): Promise<void> {
  await expect
    .poll(async () => (await rows()).map(({ node, condition }) => `${node} ${condition}`).sort(), {
      timeout: 30_000,
      interval: 100,
    })
    .toEqual(nodes.map((node) => `${node} following`).sort());
}

async function nodesAre(count: number): Promise<void> {
  const nodes = async (): Promise<unknown> => (await fetch(`${api}/v1/nodes`)).json();
  await expect.poll(nodes, { timeout: 10_000 }).toHaveLength(count);
}

const checkerOf = (seed: number): BlockChecker =>
  new BlockChecker({ sizeBytes, seed, survives: "acknowledged", requestBytesMax: 256 * 1024 });
const words = (findings: Parameters<typeof wording>[0][]): string[] => findings.map(wording);

/** Kills the node as soon as its copy has begun, and starts it again. */
async function killInFill(name: string, node: ClusterProcess, settings: object): Promise<ClusterProcess> {
  const copy = `${lab.imageOf(name, "disk0")}.fill`;
  await expect.poll(() => existsSync(copy), { timeout: 20_000, interval: 20 }).toBe(true);
  await sleep(300);
  await node.kill();
  expect(existsSync(copy)).toBe(true);
  return await lab.storage(name, { ...settings });
}

describe("replicas under load", () => {
  test("are added, killed while they fill, moved, compared and removed, and nothing is lost", async () => {
    const shelf = await lab.storage("shelf");
    await nodesAre(1);
    expect((await varve("volume", "create", "disk0", "--size", "64M")).code).toBe(0);
    const gate = await lab.gateway("gate-1");
    const client = await attach(gate.port);
    const checker = checkerOf(11);
    const stop = new AbortController();
    const running = checker.run([client], { depth: 4, signal: stop.signal });
    // A checkpoint releases the log: what comes now can't begin with entry 1.
    await sleep(1500);
    await shelf.stop();
    await lab.storage("shelf");
    await sleep(1500);

    let attic = await lab.storage("attic", { "fill-rate": "4M" });
    await nodesAre(2);
    expect((await varve("replica", "add", "disk0", "--node", "nowhere")).text).toContain(
      "no storage node named",
    );
    expect((await varve("replica", "add", "disk0", "--node", "attic")).code).toBe(0);
    expect((await varve("replica", "add", "disk0", "--node", "attic")).text).toContain(
      "has a replica on attic already",
    );
    attic = await killInFill("attic", attic, {});
    expect(attic.output).not.toContain("halted");
    // It has nothing yet: the only whole one stays.
    await placedOn("shelf", "attic");

    await lab.storage("cellar");
    await nodesAre(3);
    expect((await varve("replica", "move", "disk0", "--from", "shelf", "--to", "cellar")).code).toBe(0);
    await placedOn("attic", "cellar");
    await expect.poll(() => existsSync(lab.imageOf("shelf", "disk0")), { timeout: 15_000 }).toBe(false);
    expect((await varve("replica", "remove", "disk0", "--node", "shelf")).text).toContain(
      "has no replica on shelf",
    );

    const verified = await varve("replica", "verify", "disk0");
    expect([verified.code, verified.text]).toEqual([0, expect.stringContaining("are the same (LSN ")]);

    stop.abort();
    const result = await running;
    expect([words(result.findings), result.requestErrors, result.connectionLost]).toEqual([
      [],
      [],
      undefined,
    ]);
    expect(words(await checker.verify(client, "quiet"))).toEqual([]);

    // A lost node is no obstacle; the last one that follows is never removed.
    await attic.kill();
    expect((await varve("replica", "remove", "disk0", "--node", "cellar")).text).toContain(
      "no other replica",
    );
    await expect
      .poll(async () => (await varve("replica", "remove", "disk0", "--node", "attic")).code)
      .toBe(0);
    await placedOn("cellar");
    expect((await varve("replica", "remove", "disk0", "--node", "cellar")).code).toBe(75);
    expect(words(await checker.verify(client, "quiet"))).toEqual([]);
    // Back, it finds that it is placed there no more, and another one has all.
    await lab.storage("attic");
    await expect.poll(() => existsSync(lab.imageOf("attic", "disk0")), { timeout: 15_000 }).toBe(false);
    await client.disconnect();
  }, 90_000);

  test("a drained node is emptied; a changed image is told by comparing and filled again", async () => {
    const nodes = { shelf: await lab.storage("shelf"), attic: await lab.storage("attic") };
    await nodesAre(2);
    await varve("volume", "create", "disk0", "--size", "64M", "--replicas", "2");
    const client = await attach((await lab.gateway("gate-1")).port);
    for (let at = 0; at < sizeBytes; at += MiB)
      await client.write(at, Buffer.alloc(MiB, 1 + ((at / MiB) % 200)));
    await client.flush();
    await placedOn("shelf", "attic");

    // What an operator's hand does to a file of a node that is down: the node refuses it and says so.
    await nodes.attic.stop();
    const file = await open(lab.imageOf("attic", "disk0"), "r+");
    await file.write(Buffer.alloc(4096, 0xee), 0, 4096, 8 * MiB);
    await file.close();
    nodes.attic = await lab.storage("attic");
    await expect
      .poll(async () => (await rows()).map(({ condition }) => condition).sort())
      .toEqual(["following", "halted"]);
    expect((await varve("replica", "verify", "disk0")).text).toContain("1 replicas of disk0 follow");
    expect((await varve("replica", "repair", "disk0", "--node", "shelf")).text).toContain("no other replica");
    expect((await varve("replica", "repair", "disk0", "--node", "attic")).code).toBe(0);
    await placedOn("shelf", "attic");
    expect((await varve("replica", "verify", "disk0")).code).toBe(0);

    // Under the node's feet, where nothing but comparing can tell.
    const shelf = await open(lab.imageOf("shelf", "disk0"), "r+");
    await shelf.write(Buffer.alloc(512, 0xee), 0, 512, 20 * MiB);
    await shelf.close();
    const told = await varve("replica", "verify", "disk0");
    expect([told.code, told.text]).toEqual([1, expect.stringContaining(`extent at ${20 * MiB} differs`)]);
    expect((await varve("replica", "repair", "disk0", "--node", "shelf")).code).toBe(0);
    await expect
      .poll(async () => (await varve("replica", "verify", "disk0")).code, { timeout: 30_000 })
      .toBe(0);

    // Drained without another node: told, and nothing lost. With one: emptied.
    expect((await varve("node", "drain", "shelf", "--no-wait")).code).toBe(0);
    await sleep(1500);
    expect((await rows()).map(({ node }) => node).sort()).toEqual(["attic", "shelf"]);
    await lab.storage("cellar");
    expect((await varve("node", "drain", "shelf")).text).toContain("shelf is empty");
    await placedOn("attic", "cellar");
    await expect.poll(() => existsSync(lab.imageOf("shelf", "disk0")), { timeout: 15_000 }).toBe(false);
    expect((await varve("replica", "move", "disk0", "--from", "attic", "--to", "shelf")).text).toContain(
      "is drained",
    );
    expect((await varve("node", "undrain", "shelf")).code).toBe(0);
    expect((await client.read(20 * MiB, 512)).every((byte) => byte === 21)).toBe(true);
    await client.disconnect();
    expect(readFileSync(lab.imageOf("attic", "disk0")).length).toBe(sizeBytes);
  }, 90_000);
});
