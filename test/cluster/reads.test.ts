// What a gateway answers that is cut off or paused while another one serves the volume: with `reads: strict` nothing old, with `available`
// the last state that it acknowledged. The entries are made to stay in its overlay, where it needs nobody to answer them.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { attach, type ClusterProcess, Lab, sleep } from "../tools/cluster-process.ts";
import { NatsServers } from "../tools/nats-server.ts";
import type { NbdClient } from "../tools/nbd-client.ts";
import { TcpProxy } from "../tools/tcp-proxy.ts";

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

/** What a read came to: the byte that fills the block, or that it failed. */
const outcome = async (reading: Promise<Uint8Array>): Promise<number | "refused"> =>
  reading.then(
    (bytes) => bytes[0] ?? -1,
    () => "refused",
  );

/** Acknowledged by this gateway while no replica applies it: its overlay answers for it. */
async function writeIntoOverlay(node: ClusterProcess, clients: readonly NbdClient[]): Promise<void> {
  node.signal("SIGSTOP");
  for (const client of clients) await client.write(0, Buffer.alloc(blockBytes, 1));
}

/** Takes the volume as soon as the old lease has run out, and writes something newer. */
async function overwrite(port: number, volume: string): Promise<NbdClient> {
  const client = await attach(port, volume);
  expect(await outcome(client.read(0, blockBytes))).toBe(1);
  await client.write(0, Buffer.alloc(blockBytes, 2));
  return client;
}

describe("a gateway that does not serve the volume any more", () => {
  test("cut off from NATS: available answers its last state, strict answers nothing", async () => {
    const node = await lab.storage("shelf");
    await lab.createVolume("free", 2 ** 20, ["shelf"], "available");
    await lab.createVolume("strict", 2 ** 20, ["shelf"], "strict");
    const natsPort = Number(servers.addresses[0]?.split(":").at(-1));
    const link = await TcpProxy.start(natsPort);
    const cut = await lab.gateway("gate-1", { nats: [link.address] });
    const next = await lab.gateway("gate-2");
    const [free, strict] = [await attach(cut.port, "free"), await attach(cut.port, "strict")];
    await writeIntoOverlay(node, [free, strict]);
    expect(await outcome(strict.read(0, blockBytes))).toBe(1);
    await link.stop();
    node.signal("SIGCONT");
    const newer = [await overwrite(next.port, "free"), await overwrite(next.port, "strict")];
    expect(await outcome(free.read(0, blockBytes))).toBe(1);
    const asked = outcome(strict.read(0, blockBytes));
    expect(await Promise.race([asked, sleep(3000).then(() => "waits")])).toBe("waits");
    const { detail } = await lab.readiness(cut.health);
    expect(detail).toMatchObject({
      volumes: expect.arrayContaining([
        expect.objectContaining({ name: "free", reads: "available", unprovenReads: 0 }),
        expect.objectContaining({ name: "strict", reads: "strict", unprovenReads: 1 }),
      ]),
    });
    const metrics = await (await fetch(`http://127.0.0.1:${cut.health}/metrics`)).text();
    expect(metrics).toContain('varve_volume_unproven_reads{volume="strict"} 1\n');
    for (const client of newer) expect(await outcome(client.read(0, blockBytes))).toBe(2);
    await cut.process.kill();
    expect(await asked).toBe("refused");
  });

  test("paused past its lease with a strict read on its way: woken, it refuses it", async () => {
    const node = await lab.storage("shelf");
    await lab.createVolume("strict", 2 ** 20, ["shelf"], "strict");
    const [paused, next] = [await lab.gateway("gate-1"), await lab.gateway("gate-2")];
    const client = await attach(paused.port, "strict");
    await writeIntoOverlay(node, [client]);
    paused.process.signal("SIGSTOP");
    const asked = outcome(client.read(0, blockBytes));
    node.signal("SIGCONT");
    const newer = await overwrite(next.port, "strict");
    paused.process.signal("SIGCONT");
    expect(await asked).toBe("refused");
    expect(await outcome(newer.read(0, blockBytes))).toBe(2);
  });
});
