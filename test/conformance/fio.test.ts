// fio's own data verification through its nbd engine: what was written is read back and checked by checksum, over several
// block sizes, depths, connections and both durabilities. fio finds torn, stale and misplaced blocks by its headers.
// Next to it: libnbd.test.ts, qemu.test.ts. Speed is measured elsewhere (test/bench).

import { afterAll, beforeAll, expect, test } from "vitest";
import { ServedDisk, succeed } from "./served-disk.ts";

let disk: ServedDisk;

beforeAll(async () => {
  disk = await ServedDisk.start("disk0:256M", "relaxed:256M,durability=flush");
});

afterAll(async () => {
  await disk.end();
});

interface FioReport {
  readonly jobs: readonly {
    readonly error: number;
    readonly write: { readonly total_ios: number };
    readonly read: { readonly total_ios: number };
    readonly trim: { readonly total_ios: number };
  }[];
}

async function fio(uri: string, ...args: readonly string[]): Promise<FioReport> {
  const always = [
    "--name=verify",
    "--ioengine=nbd",
    `--uri=${uri}`,
    "--output-format=json",
    "--verify_fatal=1",
  ];
  // In the test's own directory: fio leaves its verify state where it runs.
  const text = await succeed("env", "-C", disk.dir, "fio", ...always, ...args);
  const report = JSON.parse(text.slice(text.indexOf("{"))) as FioReport;
  expect(report.jobs.length).toBeGreaterThan(0);
  for (const job of report.jobs) expect(job.error).toBe(0);
  return report;
}

for (const [name, volume] of [
  ["durable writes", "disk0"],
  ["flush-based writes", "relaxed"],
] as const) {
  test(`${name}: 4 KiB at depth 32, verified`, async () => {
    const shape = ["--rw=randwrite", "--bs=4k", "--iodepth=32", "--size=48m"];
    const report = await fio(disk.uriOf(volume), ...shape, "--verify=crc32c", "--fsync=64");
    expect(report.jobs[0]?.write.total_ios).toBe(48 * 256);
    expect(report.jobs[0]?.read.total_ios).toBe(48 * 256);
  });

  test(`${name}: sizes from 512 bytes to 2 MiB, verified`, async () => {
    const shape = ["--rw=randwrite", "--bsrange=512-2m", "--iodepth=8", "--size=96m", "--offset=64m"];
    const report = await fio(disk.uriOf(volume), ...shape, "--verify=xxhash");
    expect(report.jobs[0]?.read.total_ios).toBeGreaterThan(40);
  });

  test(`${name}: three connections read and write at once, verified on the way`, async () => {
    const shape = ["--rw=randrw", "--rwmixread=50", "--bs=16k", "--iodepth=16", "--size=24m"];
    const jobs = ["--offset_increment=32m", "--numjobs=3", "--verify=sha1", "--verify_backlog=64"];
    expect((await fio(disk.uriOf(volume), ...shape, ...jobs)).jobs).toHaveLength(3);
  });
}

test("trims, over TCP", async () => {
  const shape = ["--rw=randtrim", "--bs=8k", "--iodepth=4", "--size=8m", "--offset=200m"];
  const report = await fio(disk.tcpUri, ...shape);
  expect(report.jobs[0]?.trim.total_ios).toBeGreaterThan(100);
});
