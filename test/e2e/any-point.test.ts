// Promise: every moment of a disk opens again. Random histories on the real system (writes at any byte, zeroes, trims, overlaps,
// resizes, rollbacks, clones of clones, kill -9 in between), then 210 random points over NBD, each read whole and compared with a
// fold that knows only what was sent.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { PastServer } from "../tools/past-server.ts";
import { SeededRandom } from "../tools/seeded-random.ts";
import { SentHistory } from "../tools/sent-history.ts";

const MiB = 1024 * 1024;
const pointsPerVolume = 70;
const sizeBytes = 6 * MiB;

/** Another history each time; VARVE_TEST_SEED brings one back. */
const seed = Number(process.env["VARVE_TEST_SEED"] ?? Date.now() % 1_000_000);
const random = new SeededRandom(seed);
let server: PastServer;

beforeAll(async () => {
  server = await PastServer.start([`disk0:${sizeBytes}`]);
});
afterAll(async () => server.end());

async function work(volume: SentHistory, requests: number): Promise<void> {
  const client = await server.connect(volume.name);
  try {
    // Some of the places lie across the border of two extents, or at the end.
    const places = [0, 300_000, 4 * MiB - 8000, client.size - 20_000];
    for (let count = 0; count < requests; count += 1) await volume.sendAny(client, random, places);
    await client.disconnect();
  } finally {
    client.destroy();
  }
}

async function resize(volume: SentHistory, bytes: number): Promise<void> {
  await server.ok("POST", `/volumes/${volume.name}/resize`, { size: bytes, shrink: true });
  volume.entries.push({ kind: "resize", sizeBytes: bytes });
}

async function rollback(volume: SentHistory): Promise<void> {
  const toLsn = random.between(1, volume.lastLsn + 1);
  const size = volume.at(toLsn).length;
  if (size !== volume.present.length) volume.entries.push({ kind: "resize", sizeBytes: size });
  await server.rollback(volume.name, `lsn:${toLsn}`);
  volume.entries.push({ kind: "rollback", toLsn });
}

async function clone(parent: SentHistory, name: string): Promise<SentHistory> {
  const lsn = random.between(1, parent.lastLsn + 1);
  await server.clone(parent.name, `lsn:${lsn}`, name);
  return new SentHistory(name, () => parent.at(lsn));
}

async function killAndStart(volumes: readonly SentHistory[]): Promise<void> {
  await server.kill();
  await server.up({ volumes: [] });
  for (const volume of volumes) await volume.reopened(server);
}

describe("any point of a random history", () => {
  test(`210 points of a disk, a clone, and a clone of the clone are exact (seed ${seed})`, async () => {
    const disk = new SentHistory("disk0", () => Buffer.alloc(sizeBytes));
    await work(disk, 120);
    await resize(disk, 5 * MiB + 512);
    await work(disk, 40);
    const middle = await clone(disk, "middle");
    await killAndStart([disk, middle]);
    await work(disk, 60);
    await rollback(disk);
    await work(middle, 80);
    await resize(disk, 7 * MiB);
    await work(disk, 40);
    const leaf = await clone(middle, "leaf");
    await work(leaf, 90);
    await rollback(middle);
    await rollback(disk);
    await work(middle, 30);
    await killAndStart([disk, middle, leaf]);
    await work(disk, 20);
    await rollback(leaf);
    for (const volume of [disk, middle, leaf]) {
      const judged = await volume.judge(server, random, pointsPerVolume, `seed ${seed}`);
      expect(judged, `points of ${volume.name}`).toBe(pointsPerVolume);
    }
  });
});
