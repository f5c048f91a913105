// The reply styles that Debian's clients do not speak, by the tests' own strict client: extended headers with 64-bit lengths,
// and simple replies as old clients and the kernel use them. The same script in all three styles, against a real server;
// the client itself checks exact cover, order of the last chunk, echoed offsets and known cookies.

import { afterAll, beforeAll, expect, test } from "vitest";
import { NbdClient, NbdRequestError } from "../tools/nbd-client.ts";
import { commandFlag } from "../tools/nbd-wire.ts";
import { ServedDisk } from "./served-disk.ts";

const MiB = 1024 * 1024;
const volumeBytes = 6144 * MiB;
let disk: ServedDisk;

beforeAll(async () => {
  disk = await ServedDisk.start("disk0:6G");
});

afterAll(async () => {
  await disk.end();
});

function cells(bytes: number, seed: number): Buffer {
  const data = Buffer.alloc(bytes, seed);
  for (let at = 0; at + 8 <= bytes; at += 8) data.writeBigUInt64LE(BigInt(seed) * 1000003n + BigInt(at), at);
  return data;
}

for (const replies of ["simple", "structured", "extended"] as const) {
  test(`${replies}: data of all lengths at once comes back exactly`, async () => {
    const client = await NbdClient.connect(disk.address, "disk0", { replies });
    const sizes = [1, 7, 512, 4096, 65536, 65537, 300_001, 4 * MiB, 32 * MiB];
    const writes = sizes.map((bytes, index) => ({
      offset: index * 40 * MiB + index,
      data: cells(bytes, index + 1),
    }));
    await Promise.all(writes.map(({ offset, data }) => client.write(offset, data)));
    const reads = await Promise.all(writes.map(({ offset, data }) => client.read(offset, data.length)));
    for (const [index, { data }] of writes.entries()) expect(reads[index]?.equals(data)).toBe(true);
    await client.trim(0, 400 * MiB);
    expect((await client.read(40 * MiB, 4096)).every((byte) => byte === 0)).toBe(true);
    await client.flush();
    await client.disconnect();
  });

  test(`${replies}: a thousand small requests at once`, async () => {
    const client = await NbdClient.connect(disk.address, "disk0", { replies });
    const blocks = Array.from({ length: 1000 }, (_, index) => cells(4096, index + 50));
    await Promise.all(blocks.map((data, index) => client.write(index * 4096, data)));
    const read = await Promise.all(blocks.map((_, index) => client.read(index * 4096, 4096)));
    expect(Buffer.concat(read).equals(Buffer.concat(blocks))).toBe(true);
    expect((await client.read(0, 4096 * 1000)).equals(Buffer.concat(blocks))).toBe(true);
    await client.disconnect();
  });
}

test("extended: effects and block status over more than 4 GiB in one request", async () => {
  const contexts = ["base:allocation", "varve:residency"];
  const client = await NbdClient.connect(disk.address, "disk0", { replies: "extended", contexts });
  await client.writeZeroes(0, volumeBytes, commandFlag.fastZero);
  await client.write(5000 * MiB, cells(MiB, 1));
  await client.cache(0, volumeBytes);
  const status = await client.blockStatus(0, volumeBytes);
  expect(status.get("base:allocation")).toEqual([
    { offset: 0, length: 5000 * MiB, flags: 3 },
    { offset: 5000 * MiB, length: MiB, flags: 0 },
    { offset: 5001 * MiB, length: 1143 * MiB, flags: 3 },
  ]);
  expect(status.get("varve:residency")).toEqual([{ offset: 0, length: volumeBytes, flags: 0 }]);
  await client.disconnect();
});

test("a request that is refused says why", async () => {
  const client = await NbdClient.connect(disk.address, "disk0", { replies: "extended" });
  const failure = await client.read(volumeBytes, 512).catch((cause: unknown) => cause);
  expect(failure).toBeInstanceOf(NbdRequestError);
  expect(failure).toMatchObject({ code: "EINVAL" });
  expect(String(failure)).toContain("beyond the export");
  await client.disconnect();
});

test("a client that vanishes with writes in flight leaves the server and others as they were", async () => {
  const steady = await NbdClient.connect(disk.address, "disk0");
  await steady.write(0, cells(4096, 77));
  for (let round = 0; round < 10; round += 1) {
    const doomed = await NbdClient.connect(disk.address, "disk0", { replies: "extended" });
    const sent: Promise<unknown>[] = [doomed.read(0, 32 * MiB)];
    for (let index = 0; index < 50; index += 1)
      sent.push(doomed.write(MiB * (index + 1), cells(100_000, index)));
    doomed.destroy();
    await Promise.allSettled(sent);
    expect((await steady.read(0, 4096)).equals(cells(4096, 77))).toBe(true);
  }
  await steady.flush();
  await steady.disconnect();
});
