// The NATS server of a lab dies under load and comes back: writes wait, nothing is answered with an error, nothing acknowledged is lost,
// and everything goes on by itself. And processes that are started before their server.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { BlockChecker, describe as wording } from "../tools/block-checker.ts";
import { Lab, sleep } from "../tools/cluster-process.ts";
import { NatsServers } from "../tools/nats-server.ts";
import { NbdClient } from "../tools/nbd-client.ts";

const sizeBytes = 16 * 1024 * 1024;
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

describe("NATS away", () => {
  test("a server killed under load and started again: the load goes on without an error, and all of it is there", async () => {
    const node = await lab.storage("shelf");
    await lab.createVolume("disk0", sizeBytes, ["shelf"]);
    const gate = await lab.gateway("gate-1");
    const client = await NbdClient.connect(`127.0.0.1:${gate.port}`, "disk0");
    const checker = new BlockChecker({
      sizeBytes,
      seed: 3,
      survives: "acknowledged",
      requestBytesMax: 128 * 1024,
    });
    const stop = new AbortController();
    let acknowledged = 0;
    const running = checker.run([client], {
      depth: 8,
      signal: stop.signal,
      onAnswer: () => (acknowledged += 1),
    });
    for (let round = 0; round < 2; round += 1) {
      await sleep(1000);
      await servers.node(0).kill();
      // Longer than a lease: it runs out, and is whole again afterwards, because nobody else took it.
      await sleep(4000);
      const before = acknowledged;
      await servers.node(0).start();
      await expect.poll(() => acknowledged, { timeout: 20_000 }).toBeGreaterThan(before + 50);
    }
    stop.abort();
    const result = await running;
    expect([result.findings.map(wording), result.requestErrors, result.connectionLost]).toEqual([
      [],
      [],
      undefined,
    ]);
    expect((await checker.verify(client, "quiet")).map(wording)).toEqual([]);
    await client.disconnect();
    expect(await gate.process.stop()).toEqual({ code: 0, signal: null });
    expect(await node.stop()).toEqual({ code: 0, signal: null });
    expect(checker.verifyFile(lab.imageOf("shelf", "disk0")).map(wording)).toEqual([]);
  });

  test("processes that start before their server wait for it", async () => {
    await servers.node(0).kill();
    const starting = lab.storage("shelf");
    await sleep(1500);
    await servers.node(0).start();
    const node = await starting;
    expect(node.output).toContain("waiting for NATS");
    expect(await node.stop()).toEqual({ code: 0, signal: null });
  });
});
