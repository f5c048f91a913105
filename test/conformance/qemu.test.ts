// qemu's tools against a real server: qemu-img convert, compare, map and bench, qemu-io with every kind of write. At the end
// the server is stopped and the image file itself must be that disk.
// Next to it: libnbd.test.ts, fio.test.ts; the kernel's client and a booting guest have their own tests.

import { afterAll, beforeAll, expect, test } from "vitest";
import { client, ServedDisk, succeed } from "./served-disk.ts";

const MiB = 1024 * 1024;
let disk: ServedDisk;

beforeAll(async () => {
  disk = await ServedDisk.start("disk0:128M", "second:128M,durability=flush");
});

afterAll(async () => {
  await disk.end();
});

async function qemuIo(uri: string, ...commands: readonly string[]): Promise<void> {
  const args = commands.flatMap((command) => ["-c", command]);
  const output = await succeed("qemu-io", "-f", "raw", ...args, uri);
  expect(output).not.toMatch(/failed|error|verification/i);
}

async function same(one: string, other: string): Promise<void> {
  await succeed("qemu-img", "compare", "-f", "raw", "-F", "raw", one, other);
}

/** A raw image with five stretches of data, and the same as qcow2. */
async function source(): Promise<string> {
  const raw = disk.file("source.raw");
  const random = disk.file("random");
  await succeed("truncate", "-s", "128M", raw);
  await succeed("dd", "if=/dev/urandom", `of=${random}`, "bs=1M", "count=9", "status=none");
  for (const at of [0, 30, 31, 90, 119]) {
    const where = [`seek=${at}`, "conv=notrunc", "status=none"];
    await succeed("dd", `if=${random}`, `of=${raw}`, "bs=1M", "count=9", ...where);
  }
  await succeed("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk.file("source.qcow2"));
  return raw;
}

test("qemu-img convert in, compare, map, convert out", async () => {
  const raw = await source();
  const convert = ["convert", "-n", "-f", "qcow2", "-O", "raw", "-m", "16", "-W"];
  await succeed("qemu-img", ...convert, disk.file("source.qcow2"), disk.uri);
  await same(raw, disk.uri);
  await same(raw, disk.tcpUri);
  const map = JSON.parse(await succeed("qemu-img", "map", "--output=json", "-f", "raw", disk.uri)) as {
    readonly length: number;
    readonly data: boolean;
    readonly zero: boolean;
  }[];
  expect(map.reduce((sum, { length }) => sum + length, 0)).toBe(128 * MiB);
  const dataBytes = map.filter(({ data }) => data).reduce((sum, { length }) => sum + length, 0);
  expect(dataBytes).toBe(37 * MiB);
  expect(map.filter(({ data }) => !data).every(({ zero }) => zero)).toBe(true);
  await succeed("qemu-img", "convert", "-f", "raw", "-O", "raw", "-m", "8", disk.uri, disk.file("out.raw"));
  await same(raw, disk.file("out.raw"));
});

test("qemu-img compare notices a single differing byte", async () => {
  await qemuIo(disk.uri, "write -P 0x5a 90000001 1");
  const compare = ["compare", "-f", "raw", "-F", "raw", disk.file("source.raw"), disk.uri];
  expect((await client("qemu-img", ...compare)).code).toBe(1);
});

for (const volume of ["disk0", "second"]) {
  test(`qemu-io on ${volume}: writes, FUA, zeroes, discards, odd ranges, many at once`, async () => {
    await qemuIo(
      disk.uriOf(volume),
      "write -P 1 0 64k",
      "write -f -P 2 64k 64k",
      "write -P 3 200001 12345",
      "read -P 1 0 64k",
      "read -P 2 64k 64k",
      "read -P 3 200001 12345",
      "write -z 4k 8k",
      "read -P 0 4k 8k",
      "read -P 1 12k 4k",
      "write -z -u 16k 16k",
      "read -P 0 16k 16k",
      "write -z -f 40k 1000",
      "read -P 0 40k 1000",
      "read -P 1 41960 2000",
      "discard 64k 32k",
      "read -P 0 64k 32k",
      "read -P 2 96k 32k",
      "flush",
      "write -P 9 60M 32M",
      "read -P 9 60M 32M",
      "aio_write -P 4 1M 1M",
      "aio_write -P 5 2M 1M",
      "aio_read -P 9 61M 1M",
      "aio_flush",
      "read -P 4 1M 1M",
      "read -P 5 2M 1M",
    );
  });
}

test("qemu-io beyond the end fails and changes nothing", async () => {
  const beyond = await client("qemu-io", "-f", "raw", "-c", "write -P 7 128M 512", disk.uri);
  expect(beyond.code).not.toBe(0);
  await qemuIo(disk.uri, "read -P 1 0 4k");
});

test("qemu-img bench, reading and writing, with flushes between", async () => {
  const bench = ["bench", "-f", "raw", "-c", "2000", "-d", "32", "-s", "4096"];
  expect(await succeed("qemu-img", ...bench, disk.uri)).toMatch(/Run completed/);
  const writing = ["-w", "--flush-interval=64", "--pattern=7"];
  expect(await succeed("qemu-img", ...bench, ...writing, disk.uri)).toMatch(/Run completed/);
  await qemuIo(disk.uri, "read -P 7 0 1M");
});

test("qemu-img convert from export to export", async () => {
  const convert = ["convert", "-n", "-f", "raw", "-O", "raw", "-m", "16"];
  await succeed("qemu-img", ...convert, disk.uri, disk.uriOf("second"));
  await same(disk.uri, disk.uriOf("second"));
});

test("after a stop the image file is the disk", async () => {
  await succeed("qemu-img", "convert", "-f", "raw", "-O", "raw", disk.uri, disk.file("last.raw"));
  await disk.server.stop();
  await same(disk.file("last.raw"), disk.imagePath);
});
