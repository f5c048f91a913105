// A data directory on a small file system of its own that fills up: by the volume's own writes, then by another program's file.
// Writers hear ENOSPC, reads go on, what was acknowledged is there, and writes go on by themselves when there is room again.
// Needs the right to mount a tmpfs. Programs: mount, umount.
import { randomFillSync } from "node:crypto";
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { freePort } from "../tools/free-port.ts";
import { NbdClient, NbdRequestError } from "../tools/nbd-client.ts";
import { inTemporaryDirectory, run, varve } from "../tools/varve-command.ts";
import { VarveProcess } from "../tools/varve-process.ts";

const MiB = 1024 * 1024;
const pause = async (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A tmpfs, gone at the end. */
async function onSmallDisk(
  sizeMiB: number,
  work: (directory: string, socketDirectory: string) => Promise<void>,
): Promise<void> {
  await inTemporaryDirectory(async (directory) => {
    const mountPoint = join(directory, "small");
    mkdirSync(mountPoint);
    const mounted = await run("mount", ["-t", "tmpfs", "-o", `size=${sizeMiB}M`, "none", mountPoint]);
    expect(mounted.code, mounted.stderr).toBe(0);
    try {
      await work(mountPoint, directory);
    } catch (cause) {
      // A server may still be there, and why it is would be hidden by a busy mount.
      await run("umount", ["--lazy", mountPoint]);
      throw cause;
    }
    const unmounted = await run("umount", [mountPoint]);
    expect(unmounted.code, unmounted.stderr).toBe(0);
  });
}

/** Blocks of 1 MiB and what they are known to hold. */
class Disk {
  readonly acknowledged: Map<number, Buffer>;
  readonly client: NbdClient;

  constructor(client: NbdClient, acknowledged: ReadonlyMap<number, Buffer> = new Map()) {
    this.client = client;
    this.acknowledged = new Map(acknowledged);
  }

  /** True where it was taken, false for ENOSPC. */
  async write(block: number): Promise<boolean> {
    const bytes = randomFillSync(Buffer.alloc(MiB));
    try {
      await this.client.write(block * MiB, bytes);
    } catch (error) {
      if (error instanceof NbdRequestError && error.code === "ENOSPC") return false;
      throw error;
    }
    this.acknowledged.set(block, bytes);
    return true;
  }

  /** Writes until ENOSPC came a hundred times: once may be the log, waiting for a checkpoint. */
  async fill(): Promise<void> {
    let block = this.acknowledged.size;
    for (let refusals = 0; refusals < 100; ) {
      if (await this.write(block)) block += 1;
      else {
        refusals += 1;
        await pause(20);
      }
    }
  }

  async check(): Promise<void> {
    for (const [block, bytes] of this.acknowledged) {
      const found = await this.client.read(block * MiB, MiB);
      if (!found.equals(bytes)) throw new Error(`MiB ${block} is not what was acknowledged`);
    }
  }

  async writesAgain(block: number, withinMs: number): Promise<void> {
    const endMs = performance.now() + withinMs;
    while (!(await this.write(block))) {
      if (performance.now() > endMs) throw new Error(`no write is taken ${withinMs} ms after room was made`);
      await pause(50);
    }
  }
}

/** Takes all the room that is left. */
function fillWith(path: string): void {
  const file = openSync(path, "w");
  try {
    const zeroes = Buffer.alloc(64 * 1024);
    for (;;) writeSync(file, zeroes);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
  } finally {
    closeSync(file);
  }
}

test("a full disk costs writes an ENOSPC and nothing else", { timeout: 120_000 }, async () => {
  await onSmallDisk(224, async (directory, socketDirectory) => {
    const dataDir = join(directory, "data");
    const nbd = `unix:${join(socketDirectory, "nbd.sock")}`;
    // History on the same disk would take what is left, and its log could not go before it is archived.
    const args = ["--bucket", "none"];
    const server = await VarveProcess.start({ dataDir, nbd: [nbd], volumes: ["disk0:1G"], args });
    expect(server.output()).toContain("the reserve for a full disk is 14 MiB instead of 256 MiB");
    const disk = new Disk(await NbdClient.connect(nbd, "disk0"));
    await disk.fill();
    expect(disk.acknowledged.size).toBeGreaterThan(40);
    await disk.check();

    // Overwriting takes no room that the disk does not have.
    await disk.writesAgain(3, 40_000);
    const foreign = join(directory, "foreign");
    fillWith(foreign);
    await disk.fill();
    await disk.check();
    expect(server.running).toBe(true);

    rmSync(foreign);
    const before = disk.acknowledged.size;
    await disk.client.trim(8 * MiB, 24 * MiB);
    for (let block = 8; block < 32; block += 1) disk.acknowledged.set(block, Buffer.alloc(MiB));
    await disk.writesAgain(10, 40_000);
    await disk.writesAgain(before, 40_000);
    await disk.check();
    await disk.client.disconnect();
    await server.stop();

    const image = readFileSync(join(dataDir, "volumes", "disk0", "disk.raw"));
    for (const [block, bytes] of disk.acknowledged) {
      expect(image.subarray(block * MiB, (block + 1) * MiB).equals(bytes), `MiB ${block} of the image`).toBe(
        true,
      );
    }
  });
});

/**
 * What waits for the bucket is tried within a minute, and then says why it waits; or all of it got in before the disk was full,
 * which depends on where the archiver was. False where entries wait for longer than that without a word.
 */
async function waitsOrIsWhole(show: () => Promise<string>): Promise<boolean> {
  const deadlineMs = performance.now() + 75_000;
  while (performance.now() < deadlineMs) {
    const shown = await show();
    if (/archive trouble +put volumes.* ENOSPC/.test(shown)) {
      return shown.includes("Make room on the bucket's disk, or shorten the history window.");
    }
    const archived = /^archive +up to entry (\d+)/m.exec(shown)?.[1];
    if (archived !== undefined && archived === /, durable (\d+)$/m.exec(shown)?.[1]) return true;
    await pause(500);
  }
  return false;
}

test("a full disk with the bucket on it, too: history waits, and is whole when there is room", {
  timeout: 180_000,
}, async () => {
  await onSmallDisk(320, async (directory, socketDirectory) => {
    const dataDir = join(directory, "data");
    const nbd = `unix:${join(socketDirectory, "nbd.sock")}`;
    const http = `127.0.0.1:${await freePort()}`;
    const cli = async (...words: readonly string[]) => varve([...words, "--api", `http://${http}`]);
    const foreign = join(directory, "foreign");
    // What is left is too little for image, log, reserve and past; without it there is room for all of them, and some over.
    writeFileSync(foreign, Buffer.alloc(192 * MiB));
    const server = await VarveProcess.start({ dataDir, nbd: [nbd], http, volumes: ["disk0:64M"] });
    const disk = new Disk(await NbdClient.connect(nbd, "disk0"));
    for (let block = 0; block < 4; block += 1) expect(await disk.write(block)).toBe(true);
    expect(await cli("snapshot", "create", "disk0", "before")).toMatchObject({ code: 0 });
    const before = new Map(disk.acknowledged);

    // Overwritten again and again: it is the past that fills the disk.
    for (let round = 0, refusals = 0; refusals < 20; round += 1) {
      if (await disk.write(round % 32)) continue;
      refusals += 1;
      await pause(20);
    }
    await disk.check();
    expect(await waitsOrIsWhole(async () => (await cli("volume", "show", "disk0")).stdout)).toBe(true);
    expect(server.running).toBe(true);

    rmSync(foreign);
    await disk.writesAgain(0, 40_000);
    await disk.check();
    const after = await cli("snapshot", "create", "disk0", "after");
    expect(after, after.stderr).toMatchObject({ code: 0 });
    await disk.client.disconnect();
    await server.stop();
    const bucket = `file://${join(dataDir, "bucket")}`;
    const checked = await varve(["bucket", "check", "--bucket", bucket]);
    expect(checked, checked.stdout).toMatchObject({ code: 0 });

    // Another machine brings all of it back from the bucket alone.
    const rescued = join(socketDirectory, "rescued");
    const rescue = await varve(["rescue", "--bucket", bucket, "--data", rescued]);
    expect(rescue, rescue.stderr).toMatchObject({ code: 0 });
    const again = await VarveProcess.start({ dataDir: rescued, nbd: [nbd], args: ["--bucket", bucket] });
    for (const [point, content] of [
      ["disk0@before", before],
      ["disk0@after", disk.acknowledged],
      ["disk0", disk.acknowledged],
    ] as const) {
      const found = new Disk(await NbdClient.connect(nbd, point), content);
      await found.check();
      await found.client.disconnect();
    }
    await again.stop();
  });
});
