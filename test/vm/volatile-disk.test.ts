// The disk of the power-cut proof itself: what FLUSH and FUA covered survives a cut, the rest may not, and it really
// goes. Were this disk kinder than a real one, the proof would prove nothing.
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { NbdClient, NbdRequestError } from "../tools/nbd-client.ts";
import { commandFlag } from "../tools/nbd-wire.ts";
import { SeededRandom } from "../tools/seeded-random.ts";
import { VolatileDisk, VolatileDiskServer } from "../tools/volatile-disk.ts";

const sector = 512;
const diskBytes = 64 * 1024 * 1024;
let dir = "";
let disk: VolatileDisk;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "varve-volatile-"));
  const path = join(dir, "medium.raw");
  writeFileSync(path, "");
  truncateSync(path, diskBytes);
  disk = new VolatileDisk(path);
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const filled = (bytes: number, value: number): Buffer => Buffer.alloc(bytes, value);
const always = (): number => 0.5;
/** The distinct bytes that a range holds, sector by sector. */
const sectorsOf = (offset: number, length: number): number[] => {
  const data = disk.read(offset, length);
  const values: number[] = [];
  for (let at = 0; at < length; at += sector) {
    const value = data[at] as number;
    expect(data.subarray(at, at + sector).equals(filled(sector, value))).toBe(true);
    values.push(value);
  }
  return values;
};

describe("a volatile disk", () => {
  test("reads what was written before any flush", () => {
    disk.write(4096, filled(8192, 1), false);
    disk.write(8192, filled(sector, 2), false);
    expect(sectorsOf(4096, 8192)).toEqual([...Array(8).fill(1), 2, ...Array(7).fill(1)]);
    expect(sectorsOf(0, 4096)).toEqual(Array(8).fill(0));
  });

  test("keeps what a flush covered and drops what came after", () => {
    disk.write(0, filled(4096, 1), false);
    disk.flush();
    disk.write(0, filled(2048, 2), false);
    const report = disk.powerCut("drop", always);
    expect(report).toEqual({ mode: "drop", writes: 1, sectorsLost: 4, sectorsKept: 0 });
    expect(sectorsOf(0, 4096)).toEqual(Array(8).fill(1));
  });

  test("a flush covers what was written before it began, not what was written while it ran", () => {
    disk.write(0, filled(sector, 1), false);
    const mark = disk.mark();
    disk.write(sector, filled(sector, 2), false);
    disk.flush(mark);
    expect(disk.powerCut("drop", always).writes).toBe(1);
    expect(sectorsOf(0, 1024)).toEqual([1, 0]);
  });

  test("keeps a FUA write, but not its neighbours, and no older write lands on top of it", () => {
    disk.write(0, filled(4096, 1), false);
    disk.write(0, filled(sector, 2), true);
    disk.write(sector, filled(sector, 3), false);
    const random = new SeededRandom(1);
    const report = disk.powerCut("scatter", () => random.fraction());
    expect(report.writes).toBe(3);
    expect(sectorsOf(0, sector)).toEqual([2]);
    disk.write(0, filled(sector, 4), false);
    disk.write(0, filled(sector, 5), true);
    disk.flush();
    expect(sectorsOf(0, sector)).toEqual([5]);
  });

  test("scatters: whole writes, lost writes and torn ones, in any order", () => {
    const seen = new Set<string>();
    const random = new SeededRandom(7);
    for (let round = 0; round < 60; round++) {
      disk.write(0, filled(4096, 0), false);
      disk.flush();
      disk.write(0, filled(4096, 1), false);
      disk.write(0, filled(4096, 2), false);
      disk.powerCut("scatter", () => random.fraction());
      const values = new Set(sectorsOf(0, 4096));
      seen.add(values.size === 1 ? `all ${[...values][0]}` : "torn");
    }
    // "all 1" is reordering: the later write was lost and the earlier one was not.
    expect([...seen].sort()).toEqual(["all 0", "all 1", "all 2", "torn"]);
  });

  test("loses everything when it lies about flushes", () => {
    disk.lying = true;
    disk.write(0, filled(4096, 1), true);
    disk.flush();
    expect(sectorsOf(0, 4096)).toEqual(Array(8).fill(1));
    expect(disk.powerCut("drop", always).sectorsLost).toBe(8);
    expect(sectorsOf(0, 4096)).toEqual(Array(8).fill(0));
  });

  test("bounds its memory: the oldest writes reach the medium by themselves", () => {
    const mebibyte = 1024 * 1024;
    for (let at = 0; at < 40; at++) disk.write(at * mebibyte, filled(mebibyte, at + 1), false);
    expect(disk.counts.destaged).toBeGreaterThan(0);
    for (let at = 0; at < 40; at++) expect(disk.read(at * mebibyte, sector)[0]).toBe(at + 1);
    disk.powerCut("drop", always);
    expect(disk.read(0, sector)[0]).toBe(1);
    expect(disk.read(39 * mebibyte, sector)[0]).toBe(0);
  });
});

describe("its server", () => {
  test("speaks enough NBD, freezes, and forgets what was not flushed", async () => {
    const path = join(dir, "disk.sock");
    const server = await VolatileDiskServer.listen(disk, path);
    const client = await NbdClient.connect(`unix:${path}`, "any", { replies: "simple" });
    expect(client.size).toBe(diskBytes);
    await client.write(0, filled(4096, 1));
    await client.flush();
    await client.write(0, filled(sector, 2), commandFlag.fua);
    await client.write(1024, filled(sector, 3));
    expect((await client.read(0, 2048))[1024]).toBe(3);
    await expect(client.write(1, filled(sector, 1))).rejects.toBeInstanceOf(NbdRequestError);
    await expect(client.read(diskBytes, sector)).rejects.toBeInstanceOf(NbdRequestError);

    server.freeze();
    const unanswered = client.flush().then(
      () => "answered",
      () => "dropped",
    );
    await new Promise((resolve) => setTimeout(resolve, 50));
    server.powerCut("drop", always);
    expect(await unanswered).toBe("dropped");

    const next = await NbdClient.connect(`unix:${path}`, "any", { replies: "simple" });
    const survived = await next.read(0, 2048);
    expect([survived[0], survived[sector], survived[1024]]).toEqual([2, 1, 1]);
    await next.disconnect();
    await server.stop();
  });
});
