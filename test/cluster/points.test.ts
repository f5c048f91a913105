// The past of a cluster's volume as its users see it, by the real commands and NBD: snapshots, points by name, LSN and time at a gateway that
// does not serve the volume, first from the log alone and then from the bucket, timeline and changes; a clone that outlives its parent; cold
// extents that leave a node, and a rollback of the disk that is read from the bucket then; a scrub of replicas whose bytes changed; a deletion
// that the bucket is told; and a rollback under an attached client, and forward again, with the node killed.
import { readFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { attach, type ClusterProcess, type GatewayPlace } from "../tools/cluster-process.ts";
import { freePort } from "../tools/free-port.ts";
import { NbdClient } from "../tools/nbd-client.ts";
import { run, varve } from "../tools/varve-command.ts";
import { repositoryDir } from "../tools/varve-process.ts";
import { type ArchiverPlace, MiB, PastLab, readWhole, until } from "./past-lab.ts";

const sizeBytes = 16 * MiB;
let past: PastLab;
let api: readonly string[] = [];
let front: ClusterProcess;

beforeEach(async () => {
  past = await PastLab.start();
  const http = `127.0.0.1:${await freePort()}`;
  api = ["--api", `http://${http}`, "--json"];
  front = await past.lab.start("api", "front", { http, health: "off", bucket: past.bucketUrl });
});

afterEach(async () => {
  await past.close();
});

async function json(...words: readonly string[]): Promise<unknown> {
  const { code, stdout, stderr } = await varve([...words, ...api]);
  expect([code, stderr]).toEqual([0, ""]);
  return JSON.parse(stdout) as unknown;
}

async function diskAt({ port }: GatewayPlace, point: string): Promise<Buffer> {
  const client = await NbdClient.connect(`127.0.0.1:${port}`, `disk0@${point}`);
  const disk = await readWhole(client, sizeBytes);
  await client.disconnect();
  return disk;
}

/** A clone of disk0 at the snapshot that is gone, which is larger: it is the parent's disk and zeroes, and its own from its first entry on. */
async function cloneOf(
  { port }: GatewayPlace,
  atFirst: Buffer,
  lsn: number,
): Promise<{ isWhole(): Promise<void> }> {
  const words = ["elsewhere", "--from", `disk0@lsn:${lsn}`, "--size", "20M"];
  expect(await json("volume", "create", ...words)).toMatchObject({
    volume: { name: "elsewhere", sizeBytes: 20 * MiB, past: { origin: { name: "disk0", lsn } } },
    point: { lsn },
    job: { kind: "create from", state: "done" },
  });
  const kept = await varve(["volume", "delete", "disk0", ...api]);
  expect([kept.code, kept.stderr]).toEqual([2, expect.stringContaining("is still read from by elsewhere")]);
  const model = Buffer.concat([atFirst, Buffer.alloc(4 * MiB)]);
  const client = await attach(port, "elsewhere");
  expect((await readWhole(client, model.length)).equals(model)).toBe(true);
  await client.write(MiB - 512, Buffer.alloc(1024, 9));
  model.fill(9, MiB - 512, MiB + 512);
  const shown = async (): Promise<unknown> => json("volume", "show", "elsewhere");
  await expect.poll(shown, { timeout: 15_000 }).toMatchObject({
    past: { heldLsn: 2, extents: { local: 5, total: 5 } },
  });
  const isWhole = async (): Promise<void> => {
    expect((await readWhole(client, model.length)).equals(model)).toBe(true);
    // Of its past the bucket has entry 2; what lies below is its parent's, which is gone.
    const point = await NbdClient.connect(`127.0.0.1:${port}`, "elsewhere@lsn:2");
    expect((await readWhole(point, model.length)).equals(model)).toBe(true);
    await point.disconnect();
    await client.disconnect();
    expect(await json("bucket", "check")).toMatchObject({ problems: 0 });
  };
  return { isWhole };
}

/**
 * Cold extents leave the node's file behind a base that the bucket holds; the node is killed between the checkpoint that says so and the
 * punch. The gateway on its host, which read that file directly, reads the disk as it was, and all comes back.
 */
async function tiered(
  { shelf, archiver, gate }: { shelf: ClusterProcess; archiver: ArchiverPlace; gate: GatewayPlace },
  client: NbdClient,
  disk: Buffer,
  atKept: Buffer,
): Promise<void> {
  await json("volume", "set", "disk0", "--residency", "tiered");
  await shelf.stop();
  const failing = { VARVE_TEST_FAILPOINT: "evict:1" };
  const second = await past.lab.storage("shelf", { bucket: past.bucketUrl }, failing);
  const before = (await past.report(archiver))?.lastBaseLsn ?? 0;
  for (let at = 0; at < 25; at += 1) await client.write(0, disk.subarray(0, MiB));
  // What it held when it was started again may leave behind the next base only.
  await until(
    async () => ((await past.report(archiver))?.heldBase?.s ?? 0) > before,
    30_000,
    "a base is held",
  );
  // What is written after it stays.
  await client.write(0, disk.subarray(0, 512));
  await json("volume", "tier", "disk0", "--cold-after", "0s", "--detach");
  expect(await second.exited).toMatchObject({ signal: "SIGKILL" });
  const third = await past.lab.storage("shelf", { bucket: past.bucketUrl });
  const resident = async () =>
    ((await json("volume", "show", "disk0")) as { past: { extents: unknown } }).past.extents;
  await expect.poll(resident, { timeout: 15_000 }).toMatchObject({ total: 4, remote: 3 });
  const begin = await client.read(0, 8 * MiB);
  expect(begin.equals(disk.subarray(0, begin.length))).toBe(true);
  const forth = await coldAndBack({ node: third, gate, client, resident }, atKept);
  expect(await json("volume", "fill", "disk0")).toMatchObject({ kind: "fill", state: "done" });
  expect(await json("bucket", "check")).toMatchObject({ problems: 0 });
  await forth.stop();
  expect(readFileSync(past.lab.imageOf("shelf", "disk0")).equals(atKept)).toBe(true);
}

/**
 * A disk whose cold extents are read from a base goes back to a snapshot that is older than its window: all of it is read from there, also by
 * the node's next process, and what is written then is in it.
 */
async function coldAndBack(
  {
    node,
    gate,
    client,
    resident,
  }: { node: ClusterProcess; gate: GatewayPlace; client: NbdClient; resident: () => Promise<unknown> },
  disk: Buffer,
): Promise<ClusterProcess> {
  await client.disconnect();
  expect(await resident()).not.toMatchObject({ remote: 0 });
  expect(await json("volume", "rollback", "disk0", "--to", "kept")).toMatchObject({
    job: { kind: "rollback", state: "done", note: "it is fetched as it is read" },
  });
  await expect.poll(resident, { timeout: 15_000 }).toMatchObject({ total: 4, remote: 4 });
  const back = await attach(gate.port);
  expect((await readWhole(back, sizeBytes)).equals(disk)).toBe(true);
  await back.write(5 * MiB - 512, Buffer.alloc(1024, 7));
  disk.fill(7, 5 * MiB - 512, 5 * MiB + 512);
  await node.kill();
  const again = await past.lab.storage("shelf", { bucket: past.bucketUrl });
  expect((await readWhole(back, sizeBytes)).equals(disk)).toBe(true);
  await back.disconnect();
  return again;
}

/**
 * Deleted with writes that no archiver has seen: it is taken back as it is. Then deleted until the bucket alone has it, and brought back by an
 * api that is killed twice on the way: with all of its bytes, at once, and with its past.
 */
async function deletedAndBack(
  { gate, archiver, client }: { gate: GatewayPlace; archiver: ArchiverPlace; client: NbdClient },
  id: string,
  { disk, atKept }: { readonly disk: Buffer; readonly atKept: Buffer },
): Promise<void> {
  const bucket = past.bucketUrl;
  const http = api[1]?.replace("http://", "") ?? "";
  await archiver.process.kill();
  for (const at of [0, 5 * MiB, 16 * MiB - 512]) {
    await client.write(at, Buffer.alloc(512, 130));
    disk.fill(130, at, at + 512);
  }
  await client.disconnect();
  await gate.process.stop();
  await json("volume", "delete", "disk0");
  expect(await json("volume", "list")).toMatchObject([{ name: "disk0", condition: "deleting" }]);
  const taken = await varve(["volume", "create", "disk0", "--size", "1M", ...api]);
  expect([taken.code, taken.stderr]).toEqual([
    75,
    expect.stringContaining("volume disk0 was deleted; its log"),
  ]);
  expect(await json("volume", "undelete", "disk0")).toMatchObject({ name: "disk0", volumeId: id });
  const again = await past.lab.gateway("gate-2", { bucket });
  const first = await attach(again.port);
  expect((await readWhole(first, sizeBytes)).equals(disk)).toBe(true);
  await first.write(2 * MiB, Buffer.alloc(512, 131));
  disk.fill(131, 2 * MiB, 2 * MiB + 512);
  await first.disconnect();
  await again.process.stop();
  await past.archiver("third");
  // Its end goes, for the disk, not for its past.
  expect(await json("volume", "resize", "disk0", "--size", "12M", "--shrink")).toMatchObject({
    sizeBytes: 12 * MiB,
  });
  const left = disk.subarray(0, 12 * MiB);
  await json("volume", "delete", "disk0");
  await expect.poll(async () => past.isGone(id), { timeout: 30_000, interval: 300 }).toBe(true);
  expect(await past.logEnd(id)).toBe(null);
  expect(await json("volume", "list", "--deleted")).toMatchObject([{ name: "disk0", volumeId: id }]);
  for (const step of ["undelete-line", "undelete-log"]) {
    await front.stop();
    const settings = { http, health: "off", bucket };
    front = await past.lab.start("api", `front-${step}`, settings, { VARVE_TEST_FAILPOINT: step });
    expect((await varve(["volume", "undelete", "disk0", ...api])).code).not.toBe(0);
    expect(await front.exited).toMatchObject({ signal: "SIGKILL" });
  }
  front = await past.lab.start("api", "front-again", { http, health: "off", bucket });
  expect(await json("volume", "list", "--deleted")).toMatchObject([{ name: "disk0", volumeId: id }]);
  expect(await json("volume", "undelete", "disk0")).toMatchObject({ name: "disk0", lineNumber: 2 });
  const last = await past.lab.gateway("gate-3", { bucket });
  const back = await attach(last.port);
  expect(back.size).toBe(left.length);
  expect((await readWhole(back, left.length)).equals(left)).toBe(true);
  expect((await diskAt(last, "kept")).equals(atKept)).toBe(true);
  await back.write(0, Buffer.alloc(512, 132));
  left.fill(132, 0, 512);
  expect((await readWhole(back, left.length)).equals(left)).toBe(true);
  await expect.poll(async () => json("volume", "list", "--deleted"), { timeout: 15_000 }).toEqual([]);
  expect(await json("bucket", "check")).toMatchObject({ problems: 0 });
  await back.disconnect();
}

async function flip(node: string, offset: number): Promise<void> {
  const image = await open(past.lab.imageOf(node, "disk0"), "r+");
  await image.write(Buffer.alloc(3, 0xee), 0, 3, offset);
  await image.close();
}

/**
 * Bytes change in one node's file: a scrub beside a client finds them there and nowhere else, and puts them right from the bucket; those of
 * a node that has no bucket come from the other one, which the bucket proves right.
 */
async function scrubbed(client: NbdClient, disk: Buffer): Promise<void> {
  await past.lab.storage("attic");
  await expect.poll(async () => json("node", "list"), { timeout: 15_000 }).toHaveLength(2);
  await json("replica", "add", "disk0", "--node", "attic");
  const states = async () =>
    ((await json("replica", "list")) as { condition: string }[]).map((one) => one.condition);
  await expect.poll(states, { timeout: 15_000 }).toEqual(["following", "following"]);
  const scrub = async (...words: readonly string[]) => {
    const { code, stdout, stderr } = await varve(["scrub", "disk0", "--rate", "64M", ...words, ...api]);
    expect(stderr).toBe("");
    return { code, report: JSON.parse(stdout) as { damaged: unknown; replicas: unknown } };
  };
  const found = { node: "shelf", extent: 1, firstOffset: 5 * MiB + 77 };
  await flip("shelf", 5 * MiB + 77);
  expect(await scrub()).toMatchObject({ code: 1, report: { damaged: [{ ...found, repaired: false }] } });
  await flip("attic", 9 * MiB);
  let writes = 0;
  const writing = setInterval(() => {
    writes += 1;
    void client.write(13 * MiB, Buffer.alloc(512, writes % 250)).catch(() => undefined);
  }, 50);
  const repaired = await scrub("--repair").finally(() => clearInterval(writing));
  expect(repaired).toMatchObject({
    code: 0,
    report: {
      damaged: [
        { ...found, repaired: true },
        { node: "attic", extent: 2, repaired: true },
      ],
      replicas: [
        { node: "shelf", against: "bucket" },
        { node: "attic", against: "replicas", reason: expect.stringContaining("no bucket") },
      ],
    },
  });
  await client.write(13 * MiB, disk.subarray(13 * MiB, 13 * MiB + 512));
  const text = api.filter((word) => word !== "--json");
  const shown = await varve(["scrub", "disk0", "--node", "attic", ...text]);
  expect(shown.stdout).toMatch(/attic: 4 extents compared with the other replicas .*no bucket/);
  expect([shown.code, shown.stdout]).toEqual([0, expect.stringContaining("what was compared agrees")]);
  for (const node of ["shelf", "attic"])
    expect(readFileSync(past.lab.imageOf(node, "disk0")).equals(disk)).toBe(true);
  await json("replica", "remove", "disk0", "--node", "attic");
}

interface Ground {
  /** The first one is attached to by others until the disk goes back. */
  readonly gates: readonly [GatewayPlace, GatewayPlace];
  readonly node: ClusterProcess;
  readonly bucket: string;
}

/** Back to when the disk was `atFirst` under an attached client, then forward to `model`, each with the storage node killed behind it. */
async function backAndForward(
  { gates: [one, two], node, bucket }: Ground,
  atFirst: { readonly lsn: number; readonly disk: Buffer },
  last: { readonly lsn: number; readonly disk: Buffer },
): Promise<void> {
  const back = ["volume", "rollback", "disk0", "--to", `lsn:${atFirst.lsn}`];
  const refused = await varve([...back, ...api]);
  expect([refused.code, refused.stderr]).toEqual([
    2,
    expect.stringContaining("1 connection; it is not rolled"),
  ]);
  expect(await json(...back, "--force", "--detach")).toMatchObject({
    volume: { name: "disk0" },
    point: { lsn: atFirst.lsn },
    job: { kind: "rollback" },
    disconnected: 1,
  });
  await node.kill();
  const again = await past.lab.storage("shelf", { bucket });
  const client = await attach(two.port);
  expect((await readWhole(client, sizeBytes)).equals(atFirst.disk)).toBe(true);
  const written = Buffer.from(atFirst.disk);
  await client.write(3 * MiB - 512, Buffer.alloc(1024, 8));
  written.fill(8, 3 * MiB - 512, 3 * MiB + 512);
  const mark = (await json("snapshot", "create", "disk0", "written")) as { readonly lsn: number };
  await client.disconnect();
  expect(await json("volume", "rollback", "disk0", "--to", `lsn:${last.lsn}`)).toMatchObject({
    job: { kind: "rollback", state: "done" },
    disconnected: 0,
  });
  await again.kill();
  await past.lab.storage("shelf", { bucket });
  const forward = await attach(one.port);
  expect((await readWhole(forward, sizeBytes)).equals(last.disk)).toBe(true);
  await forward.disconnect();
  // Nothing of it is lost for the past: what was written between the two is a point like any other.
  expect((await diskAt(two, `lsn:${mark.lsn}`)).equals(written)).toBe(true);
  expect((await diskAt(two, `lsn:${last.lsn}`)).equals(last.disk)).toBe(true);
}

describe("the past of a cluster's volume", () => {
  test("opens at any gateway, from the log and from the bucket, by name, LSN and time", async () => {
    const bucket = past.bucketUrl;
    const node = await past.lab.storage("shelf", { bucket });
    await expect.poll(async () => json("node", "list"), { timeout: 15_000 }).toHaveLength(1);
    await json("volume", "create", "disk0", "--size", "16M");
    const [one, two] = [
      await past.lab.gateway("gate-1", { bucket }),
      await past.lab.gateway("gate-2", { bucket }),
    ];
    const client = await attach(one.port);
    const model = Buffer.alloc(sizeBytes);
    const write = async (offset: number, value: number, length: number): Promise<void> => {
      await client.write(offset, Buffer.alloc(length, value));
      model.fill(value, offset, offset + length);
    };
    await write(0, 1, 3 * MiB);
    await write(12_345, 2, 77);
    const first = (await json("snapshot", "create", "disk0", "first")) as { readonly lsn: number };
    const atFirst = Buffer.from(model);
    const betweenMs = Date.now() + 50;
    await until(async () => Date.now() > betweenMs + 50, 1000, "time goes on");
    await write(2 * MiB, 3, 2 * MiB);
    await client.trim(0, MiB);
    model.fill(0, 0, MiB);
    // Nothing is in the bucket: there is no archiver yet.
    expect((await diskAt(two, "first")).equals(atFirst)).toBe(true);
    const archiver = await past.archiver("keeper");
    const id = ((await json("volume", "show", "disk0")) as { readonly id: string }).id;
    const lastLsn = await past.untilHeld(archiver, id);
    const time = new Date(betweenMs).toISOString();
    for (const point of ["first", `lsn:${first.lsn}`, time]) {
      expect([point, (await diskAt(two, point)).equals(atFirst)]).toEqual([point, true]);
    }
    expect((await diskAt(two, `lsn:${lastLsn}`)).equals(model)).toBe(true);
    expect(await json("snapshot", "list", "disk0")).toMatchObject([{ name: "first", lsn: first.lsn }]);
    expect(await json("history", "disk0")).toMatchObject({ range: { fromLsn: 1, toLsn: lastLsn } });
    const { ranges } = (await json("changes", "disk0", "--from", "first", "--to", `lsn:${lastLsn}`)) as {
      readonly ranges: readonly { readonly offset: number; readonly length: number }[];
    };
    expect(ranges[0]?.offset).toBe(0);
    expect(ranges.reduce((sum, { length }) => sum + length, 0)).toBeGreaterThanOrEqual(3 * MiB);

    const gone = await varve(["snapshot", "create", "disk0", "first", ...api]);
    expect([gone.code, gone.stderr.includes("has a snapshot first already")]).toEqual([2, true]);
    await expect(diskAt(two, "lsn:99999999")).rejects.toThrow(/lsn:99999999/);
    await json("snapshot", "delete", "disk0", "first");
    await expect(diskAt(two, "first")).rejects.toThrow(/no snapshot first/);
    const ends = [
      { lsn: first.lsn, disk: atFirst },
      { lsn: lastLsn, disk: model },
    ] as const;
    await backAndForward({ gates: [one, two], node, bucket }, ...ends);
    await one.process.stop();
    // Nobody serves it: the log's end is what a snapshot names.
    expect(await json("snapshot", "create", "disk0", "last")).toMatchObject({ name: "last" });
    expect((await diskAt(two, "last")).equals(model)).toBe(true);

    const clone = await cloneOf(two, atFirst, first.lsn);
    await json("volume", "delete", "disk0");
    const reader = join(repositoryDir, "test", "oracle", "read_bucket.py");
    await expect.poll(async () => past.logEnd(id), { timeout: 30_000, interval: 500 }).toBe(null);
    const listed = await run("/usr/bin/python3", [reader, past.bucket, "list"]);
    expect(listed.stdout).toMatch(/disk0.*deleted/);
    await clone.isWhole();
  }, 240_000);

  test("ends with its window: an archiver collects, killed while it deletes, and snapshots stay as they were", async () => {
    const shelf = await past.lab.storage("shelf", { bucket: past.bucketUrl });
    await expect.poll(async () => json("node", "list"), { timeout: 15_000 }).toHaveLength(1);
    await json("volume", "create", "disk0", "--size", "16M", "--history", "1s");
    const gate = await past.lab.gateway("gate-1", { bucket: past.bucketUrl });
    const id = ((await json("volume", "show", "disk0")) as { readonly id: string }).id;
    const client = await attach(gate.port);
    const model = Buffer.alloc(sizeBytes);
    const rewrite = async (value: number): Promise<void> => {
      for (let at = 0; at < sizeBytes; at += MiB) await client.write(at, Buffer.alloc(MiB, value + at / MiB));
      for (let at = 0; at < sizeBytes; at += MiB) model.fill(value + at / MiB, at, at + MiB);
    };
    const first = await past.archiver("first", "collect:2");
    await rewrite(1);
    await json("snapshot", "create", "disk0", "kept");
    const atKept = Buffer.from(model);
    for (const value of [40, 80, 120]) await rewrite(value);
    await past.untilHeld(first, id);
    // No more than it says: the run that deletes ends the process at its second delete.
    const asked = { dies: first.process.exited.then(() => true) };
    const collecting = setInterval(() => {
      void varve(["bucket", "collect", "--accept-clock", "--detach", ...api]);
      void client.write(0, Buffer.alloc(512, 121)).catch(() => undefined);
    }, 1500);
    model.fill(121, 0, 512);
    expect(await asked.dies).toBe(true);
    clearInterval(collecting);
    const second = await past.archiver("second");
    const lastLsn = await past.untilHeld(second, id);
    expect((await diskAt(gate, "kept")).equals(atKept)).toBe(true);
    expect((await diskAt(gate, `lsn:${lastLsn}`)).equals(model)).toBe(true);
    expect(await json("bucket", "check")).toMatchObject({ problems: 0 });
    expect(await json("bucket", "usage")).toMatchObject({ place: past.bucketUrl });
    await scrubbed(client, model);
    await tiered({ shelf, archiver: second, gate }, client, model, atKept);
  }, 240_000);

  test("comes back after a deletion: as it is before the bucket has all of it, and from the bucket alone, its api killed on the way", async () => {
    const bucket = past.bucketUrl;
    await past.lab.storage("shelf", { bucket });
    await expect.poll(async () => json("node", "list"), { timeout: 15_000 }).toHaveLength(1);
    await json("volume", "create", "disk0", "--size", "16M");
    const id = ((await json("volume", "show", "disk0")) as { readonly id: string }).id;
    const archiver = await past.archiver("first");
    const gate = await past.lab.gateway("gate-1", { bucket });
    const client = await attach(gate.port);
    const disk = Buffer.alloc(sizeBytes);
    for (let at = 0; at < sizeBytes; at += 4 * MiB) {
      await client.write(at, Buffer.alloc(3 * MiB, 1 + at / MiB));
      disk.fill(1 + at / MiB, at, at + 3 * MiB);
    }
    await json("snapshot", "create", "disk0", "kept");
    await deletedAndBack({ gate, archiver, client }, id, { disk, atKept: Buffer.from(disk) });
  }, 240_000);
});
