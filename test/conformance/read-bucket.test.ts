// A second reader of the bucket, in Python (test/oracle/read_bucket.py), against buckets with random pasts: overlapping writes,
// zeroes, trims, resizes, rollbacks, rescues, clones of clones, fuzzy bases, index pages. What it exports must be what the
// disk was at each point. It shares nothing with Varve but docs/formats/bucket.md, so it tests that page, too.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { SystemRandom } from "#shared/adapters/clock/system.ts";
import { DirectoryObjectStore } from "#shared/adapters/object-store/directory.ts";
import type { FoldedDisk } from "#shared/domain/fold.ts";
import { writeDigest } from "#shared/formats/sealed-object.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { MadeVolume, randomEntry } from "../tools/made-bucket.ts";
import { SeededRandom } from "../tools/seeded-random.ts";
import { type CommandResult, inTemporaryDirectory, run } from "../tools/varve-command.ts";

/** Debian's Python has its zstandard; one that stands before it in PATH may not. */
const python = "/usr/bin/python3";
const KiB = 1024;

const read = (
  bucket: string,
  words: readonly string[],
  env: Record<string, string> = {},
): Promise<CommandResult> => run(python, ["-B", "test/oracle/read_bucket.py", bucket, ...words], env);

/** Makes a bucket in a directory that is gone afterwards. */
async function withBucket(
  work: (store: ObjectStore, bucket: string, out: string) => Promise<void>,
): Promise<void> {
  await inTemporaryDirectory(async (directory) => {
    const bucket = join(directory, "bucket");
    const store = await DirectoryObjectStore.open(bucket, { random: new SystemRandom(), create: true });
    await work(store, bucket, join(directory, "out.raw"));
    await store.close();
  });
}

function appendRandom(volume: MadeVolume, random: SeededRandom): void {
  const entries = [randomEntry(random, volume.disk.sizeBytes)];
  // Entries behind a resize have to fit the new size: one batch ends there.
  while (!("resize" in (entries.at(-1) ?? {})) && random.chance(0.6) && entries.length < 6) {
    entries.push(randomEntry(random, volume.disk.sizeBytes));
  }
  volume.append(entries);
}

async function live(volume: MadeVolume, random: SeededRandom, rounds: number): Promise<void> {
  for (let round = 0; round < rounds; round += 1) {
    for (let batches = random.between(1, 5); batches > 0; batches -= 1) appendRandom(volume, random);
    const step = random.weighted({ seal: 3, base: 3, page: 2, rollback: 2, rescue: 1 });
    if (step === "rollback") volume.rollback(random.between(1, volume.lastLsn));
    await volume.seal(random.between(1, 4), random.chance(0.3) ? 0 : 3);
    if (step === "page") await volume.makePage(random.between(1, 6));
    if (step === "base") {
      const s = random.between(
        Math.max(volume.manifest?.bases.at(-1)?.e ?? 0, volume.archivedLsn - 12),
        volume.archivedLsn,
      );
      const e = Math.min(random.between(s, volume.archivedLsn + 1), volume.rebaseAfter(s) - 1);
      if (s > (volume.manifest?.bases.at(-1)?.s ?? -1)) await volume.takeBase(s, e, random);
    }
    await volume.publish();
    if (step !== "rescue") continue;
    appendRandom(volume, random);
    await volume.rescue(random.uint32().toString(16).padStart(16, "a"));
  }
  await volume.seal();
  await volume.publish();
}

function expectSame(file: string, disk: FoldedDisk, what: string): void {
  const found = readFileSync(file);
  const expected = Buffer.from(disk.read(0, disk.sizeBytes));
  if (found.equals(expected)) return;
  const at = found.findIndex((byte, index) => byte !== expected[index]);
  expect.fail(`${what}: ${found.length} of ${expected.length} bytes, the first other one is ${at}`);
}

describe("exports what the disk was", () => {
  test.each([1, 2, 3, 4])(
    "in random history %i, of a volume, its clone and the clone's clone",
    async (seed) => {
      await withBucket(async (store, bucket, out) => {
        const random = new SeededRandom(seed * 7919);
        const family: MadeVolume[] = [];
        for (const volumeId of ["000000000000000a", "000000000000000b", "000000000000000c"]) {
          const parent = family.at(-1);
          const from = parent && { volume: parent, lsn: random.between(1, parent.archivedLsn + 1) };
          const sizeBytes = Math.max(
            from?.volume.past[from.lsn]?.sizeBytes ?? 0,
            512 * random.between(100, 20_000),
          );
          family.push(new MadeVolume(store, { volumeId, sizeBytes, ...(from && { parent: from }) }));
          await live(family.at(-1) as MadeVolume, random, parent === undefined ? 12 : 6);
        }
        for (const volume of family) {
          const points = new Set([1, volume.archivedLsn]);
          while (points.size < Math.min(8, volume.archivedLsn))
            points.add(random.between(1, volume.archivedLsn + 1));
          for (const lsn of points) {
            const result = await read(bucket, ["export", volume.volumeId, `lsn:${lsn}`, out]);
            expect(result).toMatchObject({ code: 0, stderr: "" });
            expectSame(out, volume.past[lsn] as FoldedDisk, `seed ${seed}, ${volume.volumeId}@lsn:${lsn}`);
          }
        }
      });
    },
  );

  test("with the zstd command where the module is missing", async () => {
    await withBucket(async (store, bucket, out) => {
      const volume = await smallVolume(store);
      const hidden = join(bucket, "..");
      writeFileSync(join(hidden, "zstandard.py"), "raise ImportError('hidden by the test')\n");
      const result = await read(bucket, ["export", "volume-0a", "monday", out], { PYTHONPATH: hidden });
      expect(result).toMatchObject({ code: 0, stderr: "" });
      expectSame(out, volume.past[4] as FoldedDisk, "monday");
    });
  });
});

/** LSN 1 epoch, 2-3 writes, 4 mark monday, 5 write, 6 resize, 7 rebase to 3; a base at 3. */
async function smallVolume(store: ObjectStore): Promise<MadeVolume> {
  const volume = new MadeVolume(store, { volumeId: "000000000000000a", sizeBytes: 5 * 1024 * KiB });
  volume.write(100, Buffer.alloc(9000, 1));
  volume.write(4 * 1024 * KiB - 5, Buffer.alloc(10, 2));
  volume.append([{ mark: "monday" }]);
  volume.write(0, Buffer.alloc(5000, 3));
  volume.append([{ resize: 6 * 1024 * KiB }]);
  volume.rollback(3);
  await volume.seal(2);
  await volume.makePage(2);
  await volume.takeBase(3, 3, new SeededRandom(1));
  await volume.publish();
  return volume;
}

describe("points", () => {
  test("are listed, and found by name, number and time", async () => {
    await withBucket(async (store, bucket, out) => {
      const volume = await smallVolume(store);
      const list = await read(bucket, ["list"]);
      expect(list).toMatchObject({ code: 0, stderr: "" });
      expect(list.stdout).toBe(
        `volume-0a 000000000000000a ${volume.disk.sizeBytes} bytes, lsn:0 to lsn:${volume.lastLsn}\n  monday lsn:4\n`,
      );
      const time = (lsn: number, more: number): string =>
        new Date((volume.wallTimes[lsn] ?? 0) + more).toISOString().replace("Z", "+00:00");
      for (const [point, lsn] of [
        ["monday", 4],
        ["lsn:5", 5],
        [time(5, 0), 5],
        [time(5, 999), 5],
        [time(5, 1000), 6],
        [time(2, 500), 2],
      ] as const) {
        const result = await read(bucket, ["export", "volume-0a", point, out]);
        expect([point, result.stderr, result.stdout]).toEqual([point, "", `volume-0a@lsn:${lsn}\n`]);
        expectSame(out, volume.past[lsn] as FoldedDisk, point);
      }
    });
  });

  test("that do not open are refused with the range or the candidates", async () => {
    await withBucket(async (store, bucket, out) => {
      const volume = await smallVolume(store);
      volume.wallTimeMs -= 4500;
      volume.write(0, Buffer.alloc(10, 9));
      await volume.seal();
      await volume.publish((manifest) => ({
        ...manifest,
        retainedFromLsn: 3,
        gaps: [{ fromLsn: 5, toLsn: 6 }],
      }));
      const refused = async (point: string): Promise<string> => {
        const result = await read(bucket, ["export", "volume-0a", point, out]);
        expect(result.code).toBe(1);
        return result.stderr;
      };
      expect(await refused("lsn:2")).toContain(`lsn:3 to lsn:${volume.lastLsn} do`);
      expect(await refused(`lsn:${volume.lastLsn + 1}`)).toContain("does not open");
      expect(await refused("lsn:5")).toContain("does not open");
      expect(await refused("sunday")).toContain("no snapshot");
      expect(await refused("2040-01-01T00:00:00Z")).toContain("future");
      expect(await refused("1970-01-01T00:00:00Z")).toContain("before the oldest");
      expect(await refused("2023-11-14T22:13:20")).toContain("no zone");
      const backwards = new Date(volume.wallTimes[volume.lastLsn] ?? 0).toISOString();
      expect(await refused(backwards.replace("Z", "+00:00"))).toMatch(/may be: lsn:\d+, lsn:\d+/);
    });
  });
});

describe("damage", () => {
  const kinds = [
    ["manifest", "volumes/000000000000000a/manifests/"],
    ["segment", "volumes/000000000000000a/log/0000000000000003-0000000000000004"],
    ["index page", "volumes/000000000000000a/index/"],
    ["base", "volumes/000000000000000a/bases/"],
    ["base page", "volumes/000000000000000a/pages/"],
    ["chunk", "chunks/"],
  ] as const;

  test.each(kinds)(
    "in a %s is refused, and so is one that is missing or of a newer version",
    async (_, prefix) => {
      await withBucket(async (store, bucket, out) => {
        await smallVolume(store);
        const keys: string[] = [];
        for await (const { key } of store.list(prefix)) keys.push(key);
        const key = keys.sort().at(0) as string;
        const object = readFileSync(join(bucket, key));
        const refused = async (changed: Buffer | null): Promise<string> => {
          if (changed === null) await store.remove(key);
          else writeFileSync(join(bucket, key), changed);
          const result = await read(bucket, ["export", "volume-0a", "lsn:4", out]);
          expect(result.code).toBe(1);
          return result.stderr;
        };
        const flipped = Buffer.from(object);
        flipped[object.length >> 1] = (flipped[object.length >> 1] ?? 0) ^ 1;
        expect(await refused(flipped)).toContain("damaged");
        const newer = Buffer.from(object);
        newer.writeUInt16LE(3, 4);
        writeDigest(newer);
        expect(await refused(newer)).toContain("version 3");
        expect(await refused(null)).toMatch(/named, but not there|has no manifest/);
      });
    },
  );
});
