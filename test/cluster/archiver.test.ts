// The archiver as a process among real ones (NATS, storage nodes, gateways) under load from the block checker: killed at each of its
// failpoints, paused past its lease while another one takes over, with the bucket away. What the bucket has is read by a reader that
// shares no code with Varve, and by a rescue; no log goes before the bucket holds it.
import { renameSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { limits } from "#shared/domain/limits.ts";
import { BlockChecker, describe as wording } from "../tools/block-checker.ts";
import { attach, type ClusterProcess, sleep } from "../tools/cluster-process.ts";
import { freePort } from "../tools/free-port.ts";
import { NbdClient } from "../tools/nbd-client.ts";
import { varve } from "../tools/varve-command.ts";
import { VarveProcess } from "../tools/varve-process.ts";
import { MiB, PastLab, readWhole, until } from "./past-lab.ts";

const sizeBytes = 32 * MiB;
let past: PastLab;

beforeEach(async () => {
  past = await PastLab.start();
});

afterEach(async () => {
  await past.close();
});

const checkerOf = (seed: number): BlockChecker =>
  new BlockChecker({ sizeBytes, seed, survives: "acknowledged", requestBytesMax: 256 * 1024 });

async function load(checker: BlockChecker, client: NbdClient, forMs: number): Promise<void> {
  const stop = new AbortController();
  const running = checker.run([client], { depth: 8, signal: stop.signal });
  await sleep(forMs);
  stop.abort();
  const { findings, requestErrors, connectionLost } = await running;
  expect([findings.map(wording), requestErrors, connectionLost]).toEqual([[], [], undefined]);
}

/**
 * Every storage node loses its disk: one of them comes back from the bucket and the log behind it, then from the bucket again when its image
 * was changed and nobody else follows, and the other one from that one, because somebody said so.
 */
async function allReplicasLost(client: NbdClient, nodes: readonly ClusterProcess[]): Promise<void> {
  const { lab, bucketUrl: bucket } = past;
  const http = `127.0.0.1:${await freePort()}`;
  await lab.start("api", "front", { http, health: "off" });
  const repair = async (...words: readonly string[]) => {
    const { code, stderr } = await varve(["replica", "repair", "disk0", ...words], {
      VARVE_API: `http://${http}`,
    });
    return [code, stderr];
  };
  const states = async (): Promise<string[]> => {
    const found = await (await fetch(`http://${http}/v1/replicas`)).json();
    return (found as { node: string; condition: string }[]).map((one) => `${one.node} ${one.condition}`);
  };
  const follows = async (node: string) =>
    until(async () => (await states()).includes(`${node} following`), 20_000, `${node} follows`);
  // Not archived: it is in the log alone.
  await client.write(2 * MiB, Buffer.alloc(MiB, 0xab));
  const disk = await readWhole(client, sizeBytes);
  for (const node of nodes) {
    await node.kill();
    rmSync(lab.poolOf(node.name), { recursive: true });
  }
  let shelf = await lab.storage("shelf", { bucket });
  await follows("shelf");
  expect(shelf.output).toContain(`is filled from the bucket`);
  expect((await readWhole(client, sizeBytes)).equals(disk)).toBe(true);

  await shelf.stop();
  const image = await open(lab.imageOf("shelf", "disk0"), "r+");
  await image.write(Buffer.alloc(4096, 0xee), 0, 4096, 8 * MiB);
  await image.close();
  shelf = await lab.storage("shelf", { bucket });
  await until(async () => (await states()).includes("shelf halted"), 20_000, "shelf halts");
  expect(await repair("--node", "shelf", "--from-peers")).toEqual([
    75,
    expect.stringContaining("no other replica"),
  ]);
  expect(await repair("--node", "shelf")).toEqual([0, ""]);
  await follows("shelf");
  expect((await readWhole(client, sizeBytes)).equals(disk)).toBe(true);
  // Now it is the only one that follows: reads would wait.
  expect((await repair("--node", "shelf"))[0]).toBe(75);

  const attic = await lab.storage("attic");
  await follows("attic");
  expect(attic.output).toContain("is filled from shelf");
  expect(await repair("--node", "attic", "--from-bucket")).toEqual([2, expect.stringContaining("no bucket")]);
  await client.write(3 * MiB, Buffer.alloc(MiB, 0xac));
  await client.write(2 * MiB, disk.subarray(2 * MiB, 4 * MiB));
}

describe("an archiver", () => {
  test("takes bases from replicas that are written to, lets log go when the bucket holds it, and a rescue brings the disk back", async () => {
    const nodes = [await past.lab.storage("shelf"), await past.lab.storage("attic")];
    const id = await past.lab.createVolume("disk0", sizeBytes, ["shelf", "attic"]);
    const archiver = await past.archiver("keeper");
    const client = await attach((await past.lab.gateway("gate-1")).port);
    const checker = checkerOf(1);
    await load(checker, client, 1000);
    // A base is due after so much log, and is taken while writes go on.
    for (let at = 0; at < 40; at += 1) {
      await client.write((at * MiB) % sizeBytes, Buffer.alloc(MiB, at % 251));
    }
    await until(
      async () => {
        await client.write(0, Buffer.alloc(64 * 1024, 9));
        return ((await past.report(archiver))?.lastBaseLsn ?? 0) > 0;
      },
      60_000,
      "a base is taken",
    );
    await client.write(5000, Buffer.alloc(3000, 7));
    await client.trim(9 * MiB, 5 * MiB);
    const disk = await readWhole(client, sizeBytes);
    expect(await archiver.process.stop()).toEqual({ code: 0, signal: null });
    const lastLsn = (await past.logEnd(id))?.lastLsn ?? 0;
    expect((await past.export("disk0", `lsn:${lastLsn}`)).equals(disk)).toBe(true);
    // Checkpointed and held: the log goes. An idle replica's checkpoint comes when the oldest change is so old.
    const releasedMs = limits.checkpointAgeMs + 20_000;
    await until(async () => ((await past.logEnd(id))?.oldestLsn ?? 1) > 1, releasedMs, "log is released");
    await allReplicasLost(client, nodes);

    const data = join(past.lab.directory, "rescued");
    expect(await varve(["rescue", "--bucket", past.bucketUrl, "--data", data])).toMatchObject({ code: 0 });
    const nbd = `unix:${join(past.lab.directory, "rescued.sock")}`;
    const server = await VarveProcess.start({
      dataDir: data,
      nbd: [nbd],
      args: ["--bucket", past.bucketUrl],
    });
    const rescued = await NbdClient.connect(nbd, "disk0");
    expect((await readWhole(rescued, sizeBytes)).equals(disk)).toBe(true);
    await rescued.disconnect();
    await server.stop();
  }, 240_000);

  test("killed at any of its failpoints under load, the next one goes on: the bucket has the disk, and no log went too early", async () => {
    await past.lab.storage("shelf");
    const id = await past.lab.createVolume("disk0", sizeBytes, ["shelf"]);
    const client = await attach((await past.lab.gateway("gate-1")).port);
    const checker = checkerOf(2);
    const failpoints = ["seal", "upload", "publish", "release"];
    for (const failpoint of failpoints) {
      const archiver = await past.archiver("keeper", failpoint);
      const dies = archiver.process.exited;
      const loading = load(checker, client, 2500);
      await loading;
      const end = await Promise.race([dies, sleep(20_000).then(() => "lives")]);
      expect([failpoint, end]).toEqual([failpoint, { code: null, signal: "SIGKILL" }]);
      const log = await past.logEnd(id);
      expect(log?.oldestLsn).toBe(1);
    }
    const disk = await readWhole(client, sizeBytes);
    const archiver = await past.archiver("keeper");
    await until(
      async () => {
        const report = await past.report(archiver);
        return report?.archiverEpoch === failpoints.length + 1 && report.state === "running";
      },
      20_000,
      "the last archiver has begun",
    );
    expect(await archiver.process.stop()).toEqual({ code: 0, signal: null });
    const lastLsn = (await past.logEnd(id))?.lastLsn ?? 0;
    expect((await past.export("disk0", `lsn:${lastLsn}`)).equals(disk)).toBe(true);
  });

  test("paused past its lease while another one archives: what it still stores when it wakes up changes nothing", async () => {
    await past.lab.storage("shelf");
    const id = await past.lab.createVolume("disk0", sizeBytes, ["shelf"]);
    const client = await attach((await past.lab.gateway("gate-1")).port);
    const [one, two] = [await past.archiver("one"), await past.archiver("two")];
    const checker = checkerOf(4);
    const holder = async (): Promise<string> => (await past.report(two))?.archiver ?? "";
    await load(checker, client, 1500);
    await until(
      async () => (await holder()) !== "" && ((await past.report(two))?.archivedLsn ?? 0) > 0,
      20_000,
      "begun",
    );
    const [stale, next] = (await holder()) === "one" ? [one, two] : [two, one];
    // In the middle of its work.
    const loading = load(checker, client, 6000);
    await sleep(300);
    stale.process.signal("SIGSTOP");
    await until(async () => (await past.report(next))?.archiver === next.process.name, 20_000, "taken over");
    await until(
      async () => ((await past.report(next))?.archivedLsn ?? 0) > 0,
      20_000,
      "archived by the next one",
    );
    stale.process.signal("SIGCONT");
    await loading;
    await stale.process.says("is not archived here");
    const disk = await readWhole(client, sizeBytes);
    expect(await next.process.stop()).toEqual({ code: 0, signal: null });
    const lastLsn = (await past.logEnd(id))?.lastLsn ?? 0;
    // Whichever of both has the volume now: the whole log is in the bucket, as it was written.
    await stale.process.stop();
    expect((await past.export("disk0", `lsn:${lastLsn}`)).equals(disk)).toBe(true);
  });

  test("the bucket away and back: writes go on, the log is kept until it is back, then goes", async () => {
    await past.lab.storage("shelf");
    const id = await past.lab.createVolume("disk0", sizeBytes, ["shelf"]);
    const gate = await past.lab.gateway("gate-1");
    const archiver = await past.archiver("keeper");
    const client = await attach(gate.port);
    const checker = checkerOf(5);
    await load(checker, client, 1500);
    await until(async () => ((await past.report(archiver))?.heldLsn ?? 0) > 0, 80_000, "something is held");
    renameSync(past.bucket, `${past.bucket}.away`);
    await load(checker, client, 3000);
    await archiver.process.says("does not take history");
    const away = await past.report(archiver);
    expect(away?.state).toBe("waiting for the bucket");
    await sleep(6000);
    // Everything is checkpointed by now; the log still has all that is not held.
    expect((await past.logEnd(id))?.oldestLsn).toBeLessThanOrEqual((away?.heldLsn ?? 0) + 1);
    renameSync(`${past.bucket}.away`, past.bucket);
    const disk = await readWhole(client, sizeBytes);
    const lastLsn = await past.untilHeld(archiver, id);
    expect((await past.export("disk0", `lsn:${lastLsn}`)).equals(disk)).toBe(true);
    await client.write(0, Buffer.alloc(512));
    await until(
      async () => ((await past.logEnd(id))?.oldestLsn ?? 1) > (away?.heldLsn ?? 0),
      30_000,
      "released",
    );
  });
});
