// Promise: every moment of a disk opens again. Random histories on the real system (writes at any byte, zeroes, trims, overlaps,
// resizes, rollbacks, clones of clones, kill -9 in between), then 210 random points over NBD, each read whole and compared with a
// fold that knows only what was sent.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { PastServer } from "../tools/past-server.ts";
import { SeededRandom } from "../tools/seeded-random.ts";

const MiB = 1024 * 1024;
const pointsPerVolume = 70;
const sizeBytes = 6 * MiB;

type Sent =
  | { readonly kind: "write"; readonly offset: number; readonly bytes: Buffer }
  | { readonly kind: "zero"; readonly offset: number; readonly length: number }
  | { readonly kind: "resize"; readonly sizeBytes: number }
  | { readonly kind: "rollback"; readonly toLsn: number }
  /** An epoch or a mark. */
  | { readonly kind: "nothing" };

/** One volume's entries from LSN 1 on. */
class SentHistory {
  readonly name: string;
  readonly entries: Sent[] = [];
  private readonly begin: () => Buffer;

  constructor(name: string, begin: () => Buffer) {
    this.name = name;
    this.begin = begin;
  }

  get lastLsn(): number {
    return this.entries.length;
  }

  /** The disk after entry `lsn`. */
  at(lsn: number): Buffer {
    const last = this.entries[lsn - 1];
    if (last?.kind === "rollback") return this.at(last.toLsn);
    const from = this.entries.slice(0, lsn).findLastIndex((entry) => entry.kind === "rollback") + 1;
    let disk = from === 0 ? this.begin() : this.at(from);
    for (const entry of this.entries.slice(from, lsn)) {
      if (entry.kind === "write") entry.bytes.copy(disk, entry.offset);
      else if (entry.kind === "zero") disk.fill(0, entry.offset, entry.offset + entry.length);
      else if (entry.kind === "resize") disk = resized(disk, entry.sizeBytes);
    }
    return disk;
  }

  get present(): Buffer {
    return this.at(this.lastLsn);
  }
}

function resized(disk: Buffer, bytes: number): Buffer {
  const next = Buffer.alloc(bytes);
  disk.copy(next);
  return next;
}

/** Another history each time; VARVE_TEST_SEED brings one back. */
const seed = Number(process.env["VARVE_TEST_SEED"] ?? Date.now() % 1_000_000);
const random = new SeededRandom(seed);
let server: PastServer;

beforeAll(async () => {
  server = await PastServer.start([`disk0:${sizeBytes}`]);
});
afterAll(async () => server.end());

/** One client alone, one request at a time: each is one entry, in this order. */
async function work(volume: SentHistory, requests: number): Promise<void> {
  const client = await server.connect(volume.name);
  const bytes = volume.present.length;
  try {
    for (let count = 0; count < requests; count += 1) {
      // Most requests meet in few places; some of those lie across the border of two extents.
      const around = random.chance(0.8)
        ? [0, 300_000, 4 * MiB - 8000, bytes - 20_000][random.between(0, 4)]
        : null;
      const length = random.chance(0.1) ? random.between(1, 200_000) : random.between(1, 12_000);
      const wanted = around === null ? random.between(0, bytes) : (around ?? 0) + random.between(0, 16_000);
      const offset = Math.min(wanted, bytes - length);
      const kind = random.between(0, 10);
      if (kind < 7) {
        const content = Buffer.alloc(length, random.between(1, 255));
        content.writeUInt8(count % 256, random.between(0, length));
        await client.write(offset, content);
        volume.entries.push({ kind: "write", offset, bytes: content });
      } else {
        await (kind === 7 ? client.trim(offset, length) : client.writeZeroes(offset, length));
        volume.entries.push({ kind: "zero", offset, length });
      }
    }
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
  const made = new SentHistory(name, () => parent.at(lsn));
  made.entries.push({ kind: "nothing" });
  return made;
}

async function killAndStart(volumes: readonly SentHistory[]): Promise<void> {
  await server.kill();
  await server.up({ volumes: [] });
  // Each opening is an epoch entry.
  for (const volume of volumes) volume.entries.push({ kind: "nothing" });
}

async function judge(volume: SentHistory): Promise<void> {
  const { lastLsn } = volume;
  expect((await server.volume(volume.name)).figures?.lastLsn, `entries of ${volume.name}, seed ${seed}`).toBe(
    lastLsn,
  );
  const lsns = new Set([lastLsn]);
  while (lsns.size < Math.min(pointsPerVolume, lastLsn)) lsns.add(random.between(1, lastLsn + 1));
  for (const lsn of lsns) {
    const right = volume.at(lsn);
    const client = await server.connect(`${volume.name}@lsn:${lsn}`);
    expect(client.size, `size of ${volume.name}@lsn:${lsn}, seed ${seed}`).toBe(right.length);
    const found = await client.read(0, right.length);
    await client.disconnect();
    if (!found.equals(right)) {
      const at = found.findIndex((byte, index) => byte !== right[index]);
      expect.fail(
        `${volume.name}@lsn:${lsn} is wrong at byte ${at}: ${found[at]}, not ${right[at]}; seed ${seed}`,
      );
    }
  }
}

describe("any point of a random history", () => {
  test(`210 points of a disk, a clone, and a clone of the clone are exact (seed ${seed})`, async () => {
    const disk = new SentHistory("disk0", () => Buffer.alloc(sizeBytes));
    disk.entries.push({ kind: "nothing" });
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
    for (const volume of [disk, middle, leaf]) await judge(volume);
  });
});
