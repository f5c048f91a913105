// What only the native store has: qemu's real tools refuse an image that Varve holds, and Varve one that qemu holds; the
// image thread fails what it had in hand when it ends; a file store without O_DIRECT or inline reads falls back.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, statfsSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ImageThread } from "#shared/adapters/file-store/image-thread.ts";
import { NativeFileStore } from "#shared/adapters/file-store/native.ts";
import { FileStoreError } from "#shared/domain/errors.ts";

let directory = "";
let store: NativeFileStore;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "varve-native-"));
  store = new NativeFileStore();
});
afterEach(async () => {
  await store.close();
  rmSync(directory, { recursive: true });
});

function qemuIo(path: string): { status: number | null; text: string } {
  const result = spawnSync("qemu-io", ["-f", "raw", "-c", "read 0 512", path], {
    encoding: "utf8",
  });
  expect(result.error).toBeUndefined();
  return { status: result.status, text: result.stderr };
}

test("qemu's tools refuse an image that is held, and take it again after close", async () => {
  const path = join(directory, "disk.raw");
  const file = await store.open(path, { create: true, access: "buffered" });
  await file.truncate(1 << 20);
  expect(qemuIo(path).status).toBe(0);
  file.lockAsImageWriter();
  expect(qemuIo(path)).toMatchObject({ status: 1, text: expect.stringContaining("lock") });
  const compared = spawnSync("qemu-img", ["compare", "-f", "raw", path, path], { encoding: "utf8" });
  expect(compared.stderr).toContain("lock");
  expect(compared.status).not.toBe(0);
  // Not even with -U: the newest writes may not be in the file yet, so no read of it is consistent.
  expect(spawnSync("qemu-img", ["map", "-U", "-f", "raw", path]).status).toBe(1);
  // Another descriptor of the same process being closed must not drop the lock, as a POSIX lock would be.
  const other = await store.open(path, { access: "buffered", readOnly: true });
  await other.close();
  expect(qemuIo(path).status).toBe(1);
  await file.close();
  expect(qemuIo(path).status).toBe(0);
});

test("an errno that says what is to be done has a hint, unless whoever failed knows better", () => {
  expect(new FileStoreError("truncate", "/d/disk.raw", "EFBIG").hint).toMatch(/smaller volume/);
  expect(new FileStoreError("open", "/d/disk.raw", "EROFS", { hint: "Own." }).hint).toBe("Own.");
  expect(new FileStoreError("replace", "/d/disk.raw.checkpoint", "ENOENT").hint).toMatch(/directory is gone/);
});

test("an image that qemu holds is refused, and a refused attempt leaves no lock behind", async () => {
  const path = join(directory, "disk.raw");
  const file = await store.open(path, { create: true, access: "buffered" });
  await file.truncate(1 << 20);
  const qemu: ChildProcess = spawn("qemu-io", ["-f", "raw", path], { stdio: ["pipe", "pipe", "inherit"] });
  try {
    qemu.stdin?.write("read 0 512\n");
    if (qemu.stdout !== null) await once(qemu.stdout, "data");
    expect(() => file.lockAsImageWriter()).toThrowError(
      expect.objectContaining({ code: "EAGAIN", kind: "Retry", hint: expect.stringContaining("qemu") }),
    );
    // A second qemu that shares with the first gets in: our attempt left nothing locked.
    expect(qemuIo(path).status).toBe(0);
  } finally {
    qemu.stdin?.end();
    await once(qemu, "exit");
  }
  file.lockAsImageWriter();
  await file.close();
});

test("an image is sparse: a new terabyte takes no room, written and trimmed blocks come and go", async () => {
  const path = join(directory, "disk.raw");
  const file = await store.open(path, { create: true, access: "buffered" });
  await file.truncate(2 ** 40);
  expect(statSync(path).blocks).toBe(0);
  const slab = store.allocateSlab(1 << 20);
  slab.bytes.fill(1);
  const write = { kind: "write", piece: { slab, start: 0, length: 1 << 20 }, offset: 2 ** 39 + 100 } as const;
  await file.applyAll([write]);
  expect(file.nextData(0)).toBe(2 ** 39);
  const map = spawnSync("qemu-img", ["map", "--output=json", "-f", "raw", path], { encoding: "utf8" });
  const runs = JSON.parse(map.stdout) as { start: number; length: number; data: boolean }[];
  expect(runs.filter((run) => run.data)).toMatchObject([{ start: 2 ** 39, length: (1 << 20) + 4096 }]);
  // The edges are inside blocks: the kernel zeroes them, and the blocks between are free again.
  await file.applyAll([{ kind: "punch", offset: 2 ** 39 + 200, length: (1 << 20) - 200 }]);
  await file.read(slab, 0, 4096, 2 ** 39);
  expect([slab.bytes[99], slab.bytes[100], slab.bytes[199], slab.bytes[200]]).toEqual([0, 1, 1, 0]);
  expect(statSync(path).blocks * 512).toBeLessThanOrEqual(16 * 4096);
  await file.close();
});

test("a read of cold pages goes to a thread, a hot one is answered inline", async () => {
  const file = await store.open(join(directory, "cold"), { create: true, access: "buffered" });
  const slab = store.allocateSlab(1 << 20);
  slab.bytes.fill(3);
  await file.writeDurable([{ slab, start: 0, length: 1 << 20 }], 0);
  // tmpfs may not know "cached" from "cold": every read goes to a thread there.
  const tmpfs = 0x01021994;
  const hot = statfsSync(directory).type === tmpfs ? [-1, 4096] : [4096];
  expect(hot).toContain(file.readInline(slab, 0, 4096, 8192));
  spawnSync("python3", [
    "-c",
    `import os\nf=os.open(${JSON.stringify(file.path)},os.O_RDONLY)\nos.posix_fadvise(f,0,0,os.POSIX_FADV_DONTNEED)`,
  ]);
  const cold = file.readInline(slab, 0, 4096, 512 * 1024);
  slab.bytes.fill(0);
  await file.read(slab, 0, 4096, 512 * 1024);
  expect(slab.bytes[0]).toBe(3);
  expect(hot).toContain(file.readInline(slab, 0, 4096, 512 * 1024));
  expect([-1, 4096]).toContain(cold);
  await file.close();
});

test("an image thread that ends fails what it had in hand, and refuses what comes later", async () => {
  const thread = new ImageThread();
  const outcomes: number[] = [];
  thread.run(-1, [{ kind: "truncate", sizeBytes: 0 }], (failure) => outcomes.push(failure));
  await thread.close();
  thread.run(-1, [{ kind: "truncate", sizeBytes: 0 }], (failure) => outcomes.push(failure));
  expect(outcomes.length).toBe(1);
  await new Promise((resolve) => {
    setImmediate(resolve);
  });
  // EBADF (9) where the thread still answered, EIO (5) where it ended first; then always EBADF.
  expect([5, 9]).toContain(outcomes[0]);
  expect(outcomes[1]).toBe(9);
});

test("a second process is refused the data directory and told who has it", async () => {
  const lock = await store.lockDirectory(directory);
  const script = `import { NativeFileStore } from ${JSON.stringify(new URL("../../../shared/adapters/file-store/native.ts", import.meta.url).href)};
    try { await new NativeFileStore().lockDirectory(${JSON.stringify(directory)}); console.log("got it"); }
    catch (error) { console.log(error.code, error.hint); }`;
  const second = spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });
  expect(second.stdout).toContain(`EAGAIN Process ${process.pid} `);
  await lock.release();
  const third = spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });
  expect(third.stdout).toContain("got it");
});
