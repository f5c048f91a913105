// A small lab of real processes (one NATS server, one storage node, two gateways) under load from the block checker: a gateway is
// killed, paused past its lease, stopped; the storage node is killed; nothing acknowledged is lost, nothing stale is served.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { BlockChecker, describe as wording } from "../tools/block-checker.ts";
import { attach, Lab, sleep } from "../tools/cluster-process.ts";
import { NatsServers } from "../tools/nats-server.ts";
import { NbdClient, NbdRequestError } from "../tools/nbd-client.ts";

const sizeBytes = 32 * 1024 * 1024;
let servers: NatsServers;
let lab: Lab;

beforeEach(async () => {
  servers = await NatsServers.start();
  lab = new Lab(servers);
});

afterEach(async () => {
  await lab.close();
  await servers.stop();
});

const checkerOf = (seed: number): BlockChecker =>
  new BlockChecker({ sizeBytes, seed, survives: "acknowledged", requestBytesMax: 256 * 1024 });
const words = (findings: Parameters<typeof wording>[0][]): string[] => findings.map(wording);

describe("fail-over", () => {
  test("a gateway killed under load: the next one serves all that was acknowledged, and the image is the disk", async () => {
    const node = await lab.storage("shelf");
    await lab.createVolume("disk0", sizeBytes, ["shelf"]);
    const gates = [
      await lab.gateway("gate-1"),
      await lab.gateway("gate-2"),
      await lab.gateway("gate-3"),
    ] as const;
    const checker = checkerOf(1);
    let acknowledged = 0;
    for (const [index, gate] of gates.entries()) {
      const client = await attach(gate.port);
      if (index > 0) expect(words(await checker.verify(client, "restart"))).toEqual([]);
      const running = checker.run([client], { depth: 8 });
      await sleep(1500);
      await gate.process.kill();
      const result = await running;
      expect(words(result.findings)).toEqual([]);
      expect(result.requestErrors).toEqual([]);
      acknowledged += result.acknowledged;
    }
    expect(acknowledged).toBeGreaterThan(200);
    // A clean end: one more writer comes and goes, then the image file itself is the disk.
    const last = await lab.gateway("gate-4");
    const client = await attach(last.port);
    expect(words(await checker.verify(client, "restart"))).toEqual([]);
    // Node and gateway share this host: once the grant is there, the image itself is read.
    const readDirectly = async (): Promise<string> => {
      expect(words(await checker.verify(client, "restart"))).toEqual([]);
      return JSON.stringify((await lab.readiness(last.health)).detail);
    };
    await expect.poll(readDirectly, { timeout: 10_000, interval: 200 }).toMatch(/"directReads":[1-9]/);
    await client.disconnect();
    expect(await last.process.stop()).toEqual({ code: 0, signal: null });
    expect(await node.stop()).toEqual({ code: 0, signal: null });
    expect(words(checker.verifyFile(lab.imageOf("shelf", "disk0")))).toEqual([]);
  });

  test("a storage node killed while its gateway reads the image itself: writes go on, nothing wrong is read, and it replays to the same bytes", async () => {
    let node = await lab.storage("shelf");
    await lab.createVolume("disk0", sizeBytes, ["shelf"]);
    const gate = await lab.gateway("gate-1");
    const client = await attach(gate.port);
    const checker = checkerOf(2);
    const stop = new AbortController();
    const running = checker.run([client], { depth: 8, signal: stop.signal });
    const directReads = async (): Promise<number> => {
      const { detail } = await lab.readiness(gate.health);
      const found = /"directReads":(\d+)/.exec(JSON.stringify(detail))?.[1];
      return Number(found ?? 0);
    };
    let seen = 0;
    const readsDirectly = async (): Promise<void> => {
      await expect.poll(directReads, { timeout: 20_000, interval: 50 }).toBeGreaterThan(seen + 20);
      seen = await directReads();
    };
    for (let round = 0; round < 3; round += 1) {
      await readsDirectly();
      await node.kill();
      await sleep(500);
      node = await lab.storage("shelf");
      // What it grants anew; until then it replays, and the image goes through older states.
    }
    await readsDirectly();
    stop.abort();
    const result = await running;
    expect([words(result.findings), result.requestErrors, result.connectionLost]).toEqual([
      [],
      [],
      undefined,
    ]);
    expect(words(await checker.verify(client, "quiet"))).toEqual([]);
    await client.disconnect();
    await gate.process.stop();
    expect(await node.stop()).toEqual({ code: 0, signal: null });
    expect(words(checker.verifyFile(lab.imageOf("shelf", "disk0")))).toEqual([]);
  });

  test("a gateway paused past its lease cuts its client off without an answer, and what the next one wrote stays", async () => {
    await lab.storage("shelf");
    await lab.createVolume("disk0", sizeBytes, ["shelf"]);
    const [one, two] = [await lab.gateway("gate-1"), await lab.gateway("gate-2")];
    const stale = await attach(one.port);
    await stale.write(0, Buffer.alloc(4096, 1));
    one.process.signal("SIGSTOP");
    // Sent into the socket of a process that does not run: it is taken in when it wakes up.
    const late = stale.write(0, Buffer.alloc(4096, 2)).then(
      () => "acknowledged",
      (cause: unknown) => (cause instanceof NbdRequestError ? `errno ${cause.errno}` : "cut off"),
    );
    const fresh = await attach(two.port);
    expect((await fresh.read(0, 4096)).every((byte) => byte === 1)).toBe(true);
    await fresh.write(0, Buffer.alloc(4096, 3));
    one.process.signal("SIGCONT");
    expect(await late).toBe("cut off");
    expect((await fresh.read(0, 4096)).every((byte) => byte === 3)).toBe(true);
    await fresh.write(4096, Buffer.alloc(4096, 4));
    expect((await fresh.read(4096, 4096)).every((byte) => byte === 4)).toBe(true);
    await one.process.says("is served no more");
    await fresh.disconnect();
  });

  test("a gateway that is stopped lets go of its volume at once", async () => {
    await lab.storage("shelf");
    await lab.createVolume("disk0", sizeBytes, ["shelf"]);
    const [one, two] = [await lab.gateway("gate-1"), await lab.gateway("gate-2")];
    const client = await attach(one.port);
    await client.write(0, Buffer.alloc(512, 7));
    await client.disconnect();
    expect(await one.process.stop()).toEqual({ code: 0, signal: null });
    const startMs = performance.now();
    const next = await NbdClient.connect(`127.0.0.1:${two.port}`, "disk0");
    expect(performance.now() - startMs).toBeLessThan(2000);
    expect((await next.read(0, 512)).every((byte) => byte === 7)).toBe(true);
    await next.disconnect();
    expect(await lab.readiness(two.health)).toMatchObject({ ready: true });
  });

  test("a client of another gateway is relayed to the holder, and cut off with it, to be served by its own gateway", async () => {
    await lab.storage("shelf");
    await lab.createVolume("disk0", sizeBytes, ["shelf"]);
    const [one, two] = [await lab.gateway("gate-1"), await lab.gateway("gate-2")];
    const direct = await attach(one.port);
    const relayed = await NbdClient.connect(`127.0.0.1:${two.port}`, "disk0");
    // One disk: what either writes the other reads, and requests of every kind go through.
    const checker = checkerOf(4);
    const stop = new AbortController();
    const running = checker.run([relayed, direct], { depth: 4, signal: stop.signal });
    await sleep(1500);
    stop.abort();
    const quiet = await running;
    expect([words(quiet.findings), quiet.requestErrors, quiet.connectionLost]).toEqual([[], [], undefined]);
    expect(words(await checker.verify(relayed, "quiet"))).toEqual([]);
    expect(await lab.readiness(two.health)).toMatchObject({ detail: { volumes: [] } });
    const large = Buffer.alloc(20 * 2 ** 20, 9);
    await relayed.write(2 ** 20, large);
    expect((await direct.read(2 ** 20, large.length)).equals(large)).toBe(true);

    const late = relayed.write(0, Buffer.alloc(4096, 3)).then(
      () => "acknowledged",
      () => "cut off",
    );
    await one.process.kill();
    expect(["acknowledged", "cut off"]).toContain(await late);
    await expect(relayed.read(0, 512)).rejects.toThrow();
    const next = await attach(two.port);
    expect((await next.read(2 ** 20, large.length)).equals(large)).toBe(true);
    await next.disconnect();
  });
});
