// What an operator does to a cluster, by the real commands against real processes: creates volumes with replicas, looks at nodes and
// replicas, takes a volume over, deletes it; and what a second replica is good for when a storage node dies.
import { existsSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { attach, type ClusterProcess, Lab } from "../tools/cluster-process.ts";
import { freePort } from "../tools/free-port.ts";
import { NatsServers } from "../tools/nats-server.ts";
import { varve as command } from "../tools/varve-command.ts";

let servers: NatsServers;
let lab: Lab;
let api = "";
let front: ClusterProcess;

beforeEach(async () => {
  servers = await NatsServers.start();
  lab = new Lab(servers);
  const http = `127.0.0.1:${await freePort()}`;
  api = `http://${http}`;
  front = await startApi();
});

afterEach(async () => {
  await lab.close();
  await servers.stop();
});

async function startApi(): Promise<ClusterProcess> {
  return await lab.start("api", "front", { http: api.replace("http://", ""), health: "off" });
}

async function varve(...words: readonly string[]): Promise<{ readonly code: number; readonly text: string }> {
  const { code, stdout, stderr } = await command(words, { VARVE_API: api });
  return { code, text: code === 0 ? stdout : `${stdout}${stderr}` };
}

const json = async (...words: readonly string[]): Promise<unknown> => {
  const { code, text } = await varve(...words, "--json");
  expect([code, text]).toEqual([0, text]);
  return JSON.parse(text) as unknown;
};

/** Replicas as `varve replica list` shows them, when all are as wanted. */
async function replicasAre(wanted: readonly unknown[]): Promise<void> {
  await expect
    .poll(async () => json("replica", "list"), { timeout: 15_000, interval: 200 })
    .toMatchObject(wanted);
}

describe("an operator", () => {
  test("creates a volume on the emptiest nodes, sees it served, and deletes it with everything it had", async () => {
    expect(await varve("volume", "create", "disk0", "--size", "16M")).toMatchObject({
      code: 73,
      text: expect.stringContaining("1 replicas want as many storage nodes with room, and 0 can take one"),
    });
    for (const name of ["shelf", "attic"]) await lab.storage(name);
    await expect
      .poll(async () => json("node", "list"), { timeout: 15_000 })
      .toMatchObject([{ name: "attic" }, { name: "shelf" }]);
    expect((await varve("volume", "create", "disk0", "--size", "16M", "--replicas", "3")).code).toBe(73);
    expect((await varve("volume", "create", "disk0", "--size", "16M", "--replicas", "2")).code).toBe(0);
    expect((await varve("volume", "create", "disk0", "--size", "16M")).text).toContain(
      "disk0 exists already",
    );
    expect((await varve("volume", "create", "one", "--size", "16M", "--history", "1d")).text).toContain(
      "has no bucket to keep history in",
    );
    expect((await varve("volume", "create", "one", "--size", "16M")).code).toBe(0);
    expect(await json("node", "list")).toMatchObject([{ volumes: ["disk0", "one"] }, { volumes: ["disk0"] }]);

    expect(await json("volume", "set", "one", "--reads", "strict")).toMatchObject({ reads: "strict" });
    const gate = await lab.gateway("gate-1");
    const client = await attach(gate.port);
    await client.write(0, Buffer.alloc(4096, 5));
    expect(await json("attachments")).toMatchObject([{ volume: "disk0", gateway: "gate-1", epoch: 1 }]);
    await replicasAre([
      { volume: "disk0", node: "attic", condition: "following", appliedLsn: 2 },
      { volume: "disk0", node: "shelf", condition: "following", appliedLsn: 2 },
      { volume: "one", node: "attic", condition: "filling" },
    ]);
    expect(await varve("volume", "delete", "disk0")).toMatchObject({
      code: 75,
      text: expect.stringContaining("volume disk0 is served by gateway gate-1"),
    });
    await client.disconnect();
    await gate.process.stop();
    expect((await varve("volume", "delete", "disk0")).code).toBe(0);
    expect(await json("volume", "list")).toMatchObject([{ name: "one" }]);
    for (const name of ["shelf", "attic"]) expect(existsSync(lab.imageOf(name, "disk0"))).toBe(false);
    expect(existsSync(lab.imageOf("attic", "one"))).toBe(true);
    // The name is free, and nothing of the old disk shows in the new one.
    expect((await varve("volume", "create", "disk0", "--size", "16M", "--replicas", "2")).code).toBe(0);
    const fresh = await attach((await lab.gateway("gate-2")).port);
    expect((await fresh.read(0, 4096)).every((byte) => byte === 0)).toBe(true);
    await fresh.disconnect();
  });

  test("puts the catalogue back from a cold copy: the volumes of then, with their bytes", async () => {
    const shelf = await lab.storage("shelf");
    await expect
      .poll(async () => json("node", "list"), { timeout: 15_000 })
      .toMatchObject([{ name: "shelf" }]);
    await varve("volume", "create", "disk0", "--size", "16M");
    const gate = await lab.gateway("gate-1");
    const client = await attach(gate.port);
    await client.write(0, Buffer.alloc(4096, 8));
    await client.disconnect();
    await gate.process.stop();
    await shelf.stop();
    const server = servers.node(0);
    await server.stop();
    await server.copyStore();
    await server.start();
    const create = async (): Promise<unknown> => {
      await varve("volume", "create", "later", "--size", "16M");
      return await json("volume", "list");
    };
    await expect.poll(create, { timeout: 15_000 }).toMatchObject([{ name: "disk0" }, { name: "later" }]);
    await front.stop();
    await server.stop();
    await server.putBackStore();
    await server.start();
    await startApi();
    await lab.storage("shelf");
    await expect.poll(async () => json("volume", "list")).toMatchObject([{ name: "disk0" }]);
    const again = await attach((await lab.gateway("gate-2")).port);
    expect((await again.read(0, 4096)).every((byte) => byte === 8)).toBe(true);
    await again.write(0, Buffer.alloc(4096, 9));
    await again.disconnect();
  });

  test("grows a volume that is served, shrinks one that nobody is attached to; clients see it when they connect again", async () => {
    await lab.storage("shelf");
    await expect
      .poll(async () => json("node", "list"), { timeout: 15_000 })
      .toMatchObject([{ name: "shelf" }]);
    await varve("volume", "create", "disk0", "--size", "16M");
    expect((await varve("volume", "resize", "disk0", "--size", "32M")).text).toContain("no gateway serves");
    const gate = await lab.gateway("gate-1");
    const before = await attach(gate.port);
    await before.write(0, Buffer.alloc(4096, 5));
    expect((await varve("volume", "resize", "disk0", "--size", "32M")).code).toBe(0);
    expect((await varve("volume", "resize", "disk0", "--size", "32M")).code).toBe(0);
    const half = ["volume", "resize", "disk0", "--size", "8M"] as const;
    expect((await varve(...half)).text).toContain("would cut off its end");
    expect((await varve(...half, "--shrink")).text).toContain("it is not shrunk");
    expect(await json("volume", "list")).toMatchObject([{ name: "disk0", sizeBytes: 32 * 2 ** 20 }]);
    const after = await attach(gate.port);
    await after.write(32 * 2 ** 20 - 4096, Buffer.alloc(4096, 6));
    expect((await after.read(32 * 2 ** 20 - 4096, 4096)).every((byte) => byte === 6)).toBe(true);
    expect((await after.read(0, 4096)).every((byte) => byte === 5)).toBe(true);
    await before.disconnect();
    await after.write(8 * 2 ** 20 - 4096, Buffer.alloc(8192, 7));
    await after.disconnect();
    expect(await varve(...half, "--shrink")).toMatchObject({ code: 0 });
    expect(await json("volume", "list")).toMatchObject([{ name: "disk0", sizeBytes: 8 * 2 ** 20 }]);
    const small = await attach(gate.port);
    expect(small.size).toBe(8 * 2 ** 20);
    expect((await small.read(8 * 2 ** 20 - 4096, 4096)).every((byte) => byte === 7)).toBe(true);
    expect((await varve("volume", "resize", "disk0", "--size", "32M")).code).toBe(0);
    await small.disconnect();
    const again = await attach(gate.port);
    expect(again.size).toBe(32 * 2 ** 20);
    for (const at of [8 * 2 ** 20, 32 * 2 ** 20 - 4096]) {
      expect((await again.read(at, 4096)).every((byte) => byte === 0)).toBe(true);
    }
    expect((await again.read(0, 4096)).every((byte) => byte === 5)).toBe(true);
    await again.disconnect();
  });

  test("takes a volume away from a gateway: its clients are cut off, another one serves all that was acknowledged", async () => {
    await lab.storage("shelf");
    await expect
      .poll(async () => json("node", "list"), { timeout: 15_000 })
      .toMatchObject([{ name: "shelf" }]);
    await varve("volume", "create", "disk0", "--size", "16M");
    const [one, two] = [await lab.gateway("gate-1"), await lab.gateway("gate-2")];
    expect((await varve("volume", "takeover", "disk0")).code).toBe(2);
    expect((await varve("volume", "takeover", "disk0", "--force")).text).toContain(
      "no gateway serves volume disk0",
    );
    const client = await attach(one.port);
    await client.write(0, Buffer.alloc(4096, 6));
    expect((await varve("volume", "takeover", "disk0", "--force")).text).toContain(
      "is taken from gateway gate-1",
    );
    await one.process.says("lease volume.");
    await expect(client.write(0, Buffer.alloc(4096, 7))).rejects.toThrow();
    const next = await attach(two.port);
    expect((await next.read(0, 4096)).every((byte) => byte === 6)).toBe(true);
    await next.disconnect();
  });

  test("with two replicas a dead storage node delays no read by a second", async () => {
    const nodes = { shelf: await lab.storage("shelf"), attic: await lab.storage("attic") };
    await expect.poll(async () => json("node", "list"), { timeout: 15_000 }).toHaveLength(2);
    await varve("volume", "create", "disk0", "--size", "16M", "--replicas", "2");
    const client = await attach((await lab.gateway("gate-1")).port);
    const fill = async (value: number): Promise<void> => {
      for (let offset = 0; offset < 16 * 2 ** 20; offset += 2 ** 20) {
        await client.write(offset, Buffer.alloc(2 ** 20, value));
      }
    };
    let slowestMs = 0;
    const readAll = async (value: number): Promise<void> => {
      for (let offset = 0; offset < 16 * 2 ** 20; offset += 2 ** 18) {
        const startMs = performance.now();
        const bytes = await client.read(offset, 2 ** 18);
        slowestMs = Math.max(slowestMs, performance.now() - startMs);
        expect(bytes.every((byte) => byte === value)).toBe(true);
      }
    };
    await fill(1);
    await readAll(1);
    for (const [index, name] of (["attic", "shelf"] as const).entries()) {
      nodes[name].signal(index === 0 ? "SIGSTOP" : "SIGKILL");
      await fill(10 + index);
      await readAll(10 + index);
      if (index === 0) nodes[name].signal("SIGCONT");
      else nodes[name] = await lab.storage(name);
      await replicasAre([{ condition: "following" }, { condition: "following" }]);
    }
    await readAll(11);
    expect(slowestMs).toBeLessThan(1000);
    await client.disconnect();
  });
});
