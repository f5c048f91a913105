// libnbd's tools against a real server: nbdinfo in all its forms, nbdcopy in both directions with several connections and
// sparse images, and scripts that use what no tool does (DF, meta contexts, FUA, the errno of each refusal).
// Debian's libnbd speaks structured replies; extended headers are in own-client.test.ts.

import { createHash } from "node:crypto";
import { createReadStream, mkdirSync, statSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ServedDisk, succeed } from "./served-disk.ts";

const MiB = 1024 * 1024;
let disk: ServedDisk;

beforeAll(async () => {
  disk = await ServedDisk.start("disk0:256M", "other:64M,durability=flush");
});

afterAll(async () => {
  await disk.end();
});

async function hashOf(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

/** Debian's python3 with libnbd's module, whatever python stands first in PATH. */
async function libnbd(script: string): Promise<void> {
  expect(await succeed("/usr/bin/python3", "-c", `import nbd\nh = nbd.NBD()\n${script}\nprint("done")`)).toBe(
    "done\n",
  );
}

/** A sparse ext4 file system with files in it. */
async function ext4Image(name: string, sizeBytes: number): Promise<string> {
  const path = disk.file(name);
  const tree = disk.file(`${name}.tree`);
  mkdirSync(tree);
  for (let index = 0; index < 20; index += 1) {
    writeFileSync(`${tree}/file-${index}`, Buffer.alloc(100_000 + index * 37_111, `content ${index} `));
  }
  await succeed("truncate", "-s", String(sizeBytes), path);
  await succeed("/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, path);
  return path;
}

interface ExportInfo {
  readonly "export-name": string;
  readonly "export-size": number;
}

test("nbdinfo --json names size, flags, block sizes and contexts", async () => {
  for (const uri of [disk.uri, disk.tcpUri]) {
    const info = JSON.parse(await succeed("nbdinfo", "--json", uri)) as {
      readonly protocol: string;
      readonly structured: boolean;
      readonly exports: readonly ExportInfo[];
    };
    expect(info).toMatchObject({ protocol: "newstyle-fixed", structured: true });
    expect(info.exports[0]).toMatchObject({
      "export-name": "disk0",
      "export-size": 256 * MiB,
      contexts: ["base:allocation", "varve:residency"],
      is_read_only: false,
      can_cache: true,
      can_df: true,
      can_fast_zero: true,
      can_flush: true,
      can_fua: true,
      can_multi_conn: true,
      can_trim: true,
      can_zero: true,
      block_size_minimum: 1,
      block_size_preferred: 4096,
      block_size_maximum: 32 * MiB,
    });
  }
});

test("nbdinfo --list names all exports", async () => {
  const uri = disk.uri.replace("/disk0?", "/?");
  const info = JSON.parse(await succeed("nbdinfo", "--list", "--json", uri)) as {
    readonly exports: readonly ExportInfo[];
  };
  expect(info.exports.map((item) => [item["export-name"], item["export-size"]])).toEqual([
    ["disk0", 256 * MiB],
    ["other", 64 * MiB],
  ]);
});

test("nbdcopy brings an ext4 image in, with holes, and out again byte for byte", async () => {
  const image = await ext4Image("ext4.img", 256 * MiB);
  await succeed("nbdcopy", "--connections=4", "--requests=32", image, disk.uri);
  await succeed("nbdcopy", "--flush", "--connections=4", disk.uri, disk.file("out.img"));
  expect(await hashOf(disk.file("out.img"))).toBe(await hashOf(image));
  await succeed("/sbin/e2fsck", "-f", "-n", disk.file("out.img"));
  expect(statSync(disk.imagePath).blocks * 512).toBeLessThan(64 * MiB);
});

test("nbdinfo --map shows the image's holes, and they add up to the size", async () => {
  const map = JSON.parse(await succeed("nbdinfo", "--map", "--json", disk.uri)) as {
    readonly length: number;
    readonly type: number;
  }[];
  expect(map.reduce((sum, { length }) => sum + length, 0)).toBe(256 * MiB);
  expect(new Set(map.map(({ type }) => type))).toEqual(new Set([0, 3]));
  expect(await succeed("nbdinfo", "--map", "--totals", disk.uri)).toMatch(/hole,zero/);
  const residency = await succeed("nbdinfo", "--map=varve:residency", "--json", disk.uri);
  expect((JSON.parse(residency) as { type: number }[]).every(({ type }) => type === 0)).toBe(true);
});

test("nbdcopy with the largest requests, synchronously, and over TCP", async () => {
  const random = disk.file("random.img");
  await succeed("dd", "if=/dev/urandom", `of=${random}`, "bs=1M", "count=64", "status=none");
  await succeed("nbdcopy", "--connections=2", "--request-size=33554432", random, disk.uriOf("other"));
  await succeed("nbdcopy", disk.tcpUri.replace("/disk0", "/other"), disk.file("back.img"));
  expect(await hashOf(disk.file("back.img"))).toBe(await hashOf(random));
  await succeed("nbdcopy", "--synchronous", disk.uriOf("other"), disk.file("again.img"));
  expect(await hashOf(disk.file("again.img"))).toBe(await hashOf(random));
});

test("writes, FUA, zeroes, trims, DF and block status as libnbd sees them", async () => {
  await libnbd(`
h.add_meta_context("base:allocation")
h.add_meta_context("varve:residency")
h.connect_uri("${disk.uriOf("other")}")
size = h.get_size()
M = 1 << 20
assert h.can_meta_context("base:allocation") and h.can_meta_context("varve:residency")
def status(offset, length, flags=0):
    seen = {}
    def extent(name, off, entries, err):
        seen[name] = list(zip(entries[0::2], entries[1::2]))
    h.block_status(length, offset, extent, flags)
    return seen
h.trim(size, 0)
assert status(0, size)["base:allocation"] == [(size, 3)], status(0, size)
data = bytes(range(256)) * 4096
h.pwrite(data, 3 * M, nbd.CMD_FLAG_FUA)
assert h.pread(len(data), 3 * M) == data
whole = []
def one(buf, off, state, err):
    whole.append((off, state))
assert h.pread_structured(65536, 3 * M + 4096, one, nbd.CMD_FLAG_DF) == data[4096:4096 + 65536]
assert whole == [(3 * M + 4096, nbd.READ_DATA)], whole
assert h.pread(32 * M, 0)[3 * M:4 * M] == data
seen = status(0, size)
assert seen["base:allocation"] == [(3 * M, 3), (M, 0), (size - 4 * M, 3)], seen
assert seen["varve:residency"] == [(size, 0)], seen
assert status(0, size, nbd.CMD_FLAG_REQ_ONE)["base:allocation"] == [(3 * M, 3)]
h.zero(4096, 3 * M, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
assert status(3 * M, M)["base:allocation"][0][1] == 0
h.zero(65536, 3 * M + 65536, nbd.CMD_FLAG_FAST_ZERO)
assert h.pread(4096, 3 * M) == bytes(4096)
assert h.pread(65536, 3 * M + 65536) == bytes(65536)
h.pwrite(b"x", 3 * M + 65537)
assert h.pread(4, 3 * M + 65536) == bytes([0, 120, 0, 0])
h.trim(7, 3 * M + 200001)
want = data[200000:200001] + bytes(7) + data[200008:200016]
assert h.pread(16, 3 * M + 200000) == want
h.cache(size, 0)
h.flush()
chunks = []
def chunk(buf, off, state, err):
    chunks.append((off, len(buf), state))
h.pread_structured(8 * M, 0, chunk)
assert {c[2] for c in chunks} == {nbd.READ_HOLE, nbd.READ_DATA}, chunks
assert sorted(chunks)[0][0] == 0 and sum(c[1] for c in chunks) == 8 * M, chunks
h.shutdown()
`);
});

test("what the protocol forbids gets its errno and leaves the session usable", async () => {
  await libnbd(`
h.set_strict_mode(0)
h.connect_uri("${disk.uri}")
size = h.get_size()
before = h.pread(4096, 0)
def fails(code, call):
    try:
        call()
    except nbd.Error as ex:
        assert ex.errno == code, (ex.errno, ex.string)
    else:
        raise AssertionError("no error")
fails("EINVAL", lambda: h.pread(512, size))
fails("EINVAL", lambda: h.pread(512, size - 511))
fails("ENOSPC", lambda: h.pwrite(bytes(512), size))
fails("ENOSPC", lambda: h.zero(512, size))
fails("EINVAL", lambda: h.trim(512, size))
fails("EINVAL", lambda: h.cache(512, size))
fails("EINVAL", lambda: h.pread(33 * 1024 * 1024, 0))
fails("EINVAL", lambda: h.pwrite(bytes(512), 0, nbd.CMD_FLAG_NO_HOLE))
fails("EINVAL", lambda: h.pwrite(bytes(40 * 1024 * 1024), 0))
fails("EINVAL", lambda: h.trim(512, 0, nbd.CMD_FLAG_FAST_ZERO))
assert h.pread(4096, 0) == before
h.shutdown()
`);
});

test("FLUSH on one connection covers writes answered on another", async () => {
  await libnbd(`
g = nbd.NBD()
h.connect_uri("${disk.uriOf("other")}")
g.connect_uri("${disk.uriOf("other")}")
for i in range(50):
    h.pwrite(bytes([i]) * 4096, i * 4096)
    g.flush()
    assert g.pread(4096, i * 4096) == bytes([i]) * 4096
h.shutdown()
g.shutdown()
`);
});
