// A disk in processes of its own (--only): whatever hangs or dies of one volume's gateway and storage node, the other volume's clients
// notice nothing. Real processes and one NATS server.
import { afterEach, beforeEach, expect, test } from "vitest";
import { Lab } from "../tools/cluster-process.ts";
import { NatsServers } from "../tools/nats-server.ts";
import { NbdClient } from "../tools/nbd-client.ts";

const blockBytes = 4096;
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

async function ofItsOwn(volume: string) {
  const only = { only: volume };
  const shelf = await lab.storage(`shelf-${volume}`, only);
  await lab.createVolume(volume, 2 ** 20, [`shelf-${volume}`]);
  const gate = await lab.gateway(`gate-${volume}`, only);
  return { shelf, gate, client: await NbdClient.connect(`127.0.0.1:${gate.port}`, volume) };
}

/** Writes and reads blocks one after the other; the slowest of all. */
async function slowestMs(client: NbdClient, value: number): Promise<number> {
  let slowest = 0;
  for (let offset = 0; offset < 100 * blockBytes; offset += blockBytes) {
    const startMs = performance.now();
    await client.write(offset, Buffer.alloc(blockBytes, value));
    expect((await client.read(offset, blockBytes)).every((byte) => byte === value)).toBe(true);
    slowest = Math.max(slowest, performance.now() - startMs);
  }
  return slowest;
}

test("a disk whose processes hang or die does not touch one that has its own", async () => {
  const one = await ofItsOwn("one");
  const two = await ofItsOwn("two");
  await expect(NbdClient.connect(`127.0.0.1:${two.gate.port}`, "one")).rejects.toThrow();
  await one.client.write(0, Buffer.alloc(blockBytes, 7));
  for (const victim of [one.shelf, one.gate.process]) victim.signal("SIGSTOP");
  // More is on its way to it than it will ever answer.
  const stuck = Array.from({ length: 16 }, async () => one.client.read(0, blockBytes));
  for (const reading of stuck) reading.catch(() => undefined);
  expect(await slowestMs(two.client, 1)).toBeLessThan(1000);
  for (const victim of [one.shelf, one.gate.process]) await victim.kill();
  expect(await slowestMs(two.client, 2)).toBeLessThan(1000);
  for (const reading of stuck) await expect(reading).rejects.toThrow();
  // Put back, it has what was acknowledged.
  await lab.storage("shelf-one", { only: "one" });
  const { port } = await lab.gateway("gate-again", { only: "one" });
  const again = await NbdClient.connect(`127.0.0.1:${port}`, "one");
  expect((await again.read(0, blockBytes)).every((byte) => byte === 7)).toBe(true);
  await again.disconnect();
  await two.client.disconnect();
});
