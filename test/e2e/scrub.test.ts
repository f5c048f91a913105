// Bytes of an image that change behind a real process, as a bad disk or a stray hand changes them: while it runs, and while it is
// down. Scrub finds them by the history in the bucket and repairs them, at the rate that was asked for; reads are right afterwards.
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { afterEach, describe, expect, test } from "vitest";
import type { ApiBucketReport } from "#shared/api/bucket-api.ts";
import type { ApiJob } from "#shared/api/past-api.ts";
import { bytesOf, PastServer } from "../tools/past-server.ts";
import { varve } from "../tools/varve-command.ts";

const MiB = 1024 * 1024;
const content = bytesOf(1, 18 * MiB);
/** In extents 0, 1 and 4; the last one is behind the content, where the disk is zero. */
const wounds = [77, 5 * MiB + 1, 19 * MiB + 4095] as const;

const servers: PastServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.end();
});

async function machine(): Promise<PastServer> {
  const server = await PastServer.start(["disk0:20M"]);
  servers.push(server);
  await server.write("disk0", 0, content);
  return server;
}

function damage(path: string, offsets: readonly number[]): void {
  const file = openSync(path, "r+");
  const byte = Buffer.alloc(1);
  for (const offset of offsets) {
    readSync(file, byte, 0, 1, offset);
    byte[0] = (byte[0] ?? 0) ^ 0x40;
    writeSync(file, byte, 0, 1, offset);
  }
  closeSync(file);
}

async function expectRight(server: PastServer): Promise<void> {
  const found = await server.read("disk0", 0, 20 * MiB);
  expect(found.subarray(0, content.length).equals(content)).toBe(true);
  expect(found.subarray(content.length).every((byte) => byte === 0)).toBe(true);
}

const scrub = (server: PastServer, ...more: readonly string[]) =>
  varve(["scrub", "disk0", "--rate", "1G", ...more, ...server.api]);

describe("scrub", () => {
  test("finds bytes that changed while the server runs, repairs them when asked, and leaves nothing to find", async () => {
    const server = await machine();
    expect((await scrub(server)).stdout).toContain("image and history agree");
    const { imagePath } = await server.volume("disk0");
    damage(imagePath, wounds);
    const found = await scrub(server);
    expect(found.code).toBe(1);
    expect(found.stdout.match(/^extent \d differs from byte \d+ on: not repaired$/gm)).toEqual(
      wounds.map((at) => `extent ${Math.floor(at / (4 * MiB))} differs from byte ${at} on: not repaired`),
    );
    const repaired = await scrub(server, "--repair");
    expect([repaired.code, repaired.stderr]).toEqual([0, ""]);
    expect(repaired.stdout.match(/^extent \d differs from byte \d+ on: repaired$/gm)).toHaveLength(3);
    expect(repaired.stdout).toMatch(/^verdict +3 damaged$/m);
    await expectRight(server);
    expect((await scrub(server)).stdout).toContain("image and history agree");
    // The file on disk is whole again, not only what clients see.
    await server.stop();
    const bytes = Buffer.alloc(content.length);
    const file = openSync(imagePath, "r");
    readSync(file, bytes, 0, bytes.length, 0);
    closeSync(file);
    expect(bytes.equals(content)).toBe(true);
    await server.up({ volumes: [] });
    await expectRight(server);
  });

  test("an image that changed while a killed server was down is served, found and repaired", async () => {
    const server = await machine();
    // Bytes on disk and in a checkpoint: nothing of this is replayed.
    await server.stop();
    await server.up({ volumes: [] });
    const { imagePath } = await server.volume("disk0");
    await server.kill();
    damage(imagePath, wounds);
    await server.up({ volumes: [] });
    const repaired = await scrub(server, "--repair");
    expect([repaired.code, repaired.stderr]).toEqual([0, ""]);
    expect(repaired.stdout.match(/: repaired$/gm)).toHaveLength(3);
    await expectRight(server);
  });

  test("an image that changed after a clean stop is refused; discarded, it is filled from the history again", async () => {
    const server = await machine();
    const { imagePath } = await server.volume("disk0");
    await server.stop();
    damage(imagePath, [wounds[0]]);
    await expect(server.up()).rejects.toThrow(/image adopt/);
    const discarded = await varve(["image", "discard", "disk0", "--data", server.dataDir]);
    expect(discarded.code, discarded.stderr).toBe(0);
    await server.up({ volumes: [] });
    await expectRight(server);
    expect((await scrub(server)).stdout).toContain("image and history agree");
  });

  test("writes to damaged extents go on beside the repair, and win", async () => {
    const server = await machine();
    const { imagePath } = await server.volume("disk0");
    damage(imagePath, wounds);
    const job = await server.ok<ApiJob>("POST", "/volumes/disk0/scrub", {
      repair: true,
      bytesPerSecond: 64 * MiB,
    });
    const expected = Buffer.concat([content, Buffer.alloc(2 * MiB)]);
    for (let count = 0; count < 60; count += 1) {
      const offset = ((count * 1_234_577) % (19 * MiB)) & ~511;
      const bytes = bytesOf(100 + count, 4096);
      await server.write("disk0", offset, bytes);
      bytes.copy(expected, offset);
    }
    await server.ended(job);
    const again = await scrub(server, "--repair");
    expect([again.code, again.stderr]).toEqual([0, ""]);
    expect((await server.read("disk0", 0, 20 * MiB)).equals(expected)).toBe(true);
  });

  test("reads no faster than it was asked to, and reports how far it came", async () => {
    const server = await machine();
    const startedMs = performance.now();
    const job = await server.ok<ApiJob>("POST", "/volumes/disk0/scrub", { bytesPerSecond: 10 * MiB });
    await server.ended(job);
    // 20 MiB at 10 MiB/s.
    expect(performance.now() - startedMs).toBeGreaterThan(1900);
    const { report } = await server.ok<Extract<ApiBucketReport, { kind: "scrub" }>>(
      "GET",
      `/bucket/reports/${job.id}`,
    );
    expect(report).toMatchObject({ volume: "disk0", extents: 5, compared: 5, damaged: [] });
  });
});
