// The loads of the soak, each a loop until the signal: block checkers with quiet full checks, fio with verify, ext4 images
// copied in and out by nbdcopy and checked by e2fsck, and a slow probe that measures latency from outside.
// Caller: soak.ts. Every wrong byte or error goes to `failures`; a load never goes on in silence.

import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { type BlockChecker, describe } from "../tools/block-checker.ts";
import { runFio } from "../tools/fio.ts";
import { NbdClient } from "../tools/nbd-client.ts";
import { SeededRandom } from "../tools/seeded-random.ts";
import { nbdUri } from "../tools/varve-process.ts";

const run = promisify(execFile);

export interface LoadContext {
  readonly address: string;
  readonly dir: string;
  readonly signal: AbortSignal;
  readonly failures: string[];
  readonly counts: { checkerOperations: number; quietChecks: number; fioRuns: number; fileSystems: number };
}

export interface ProbeWindow {
  readonly writesMs: number[];
  readonly readsMs: number[];
  readonly controlMs: number[];
}

const quietEveryMs = 20_000;
const imageMiB = 128;
/** Copies at full speed would leave nothing to the other loads. */
const fileSystemRestMs = 5_000;

export async function checkerLoad(
  context: LoadContext,
  volume: string,
  checker: BlockChecker,
): Promise<void> {
  while (!context.signal.aborted) {
    const clients = [
      await NbdClient.connect(context.address, volume, { replies: "structured" }),
      await NbdClient.connect(context.address, volume, { replies: "extended" }),
    ];
    const signal = AbortSignal.any([context.signal, AbortSignal.timeout(quietEveryMs)]);
    const result = await checker.run(clients, { depth: 4, thinkTimeMs: 10, signal });
    const [first] = clients as [NbdClient];
    context.counts.checkerOperations += result.acknowledged;
    const findings = [...result.findings, ...(await checker.verify(first, "quiet"))];
    context.counts.quietChecks += 1;
    for (const client of clients) await client.disconnect();
    for (const finding of findings) context.failures.push(`${volume}: ${describe(finding)}`);
    for (const error of result.requestErrors) context.failures.push(`${volume}: ${error}`);
    if (result.connectionLost !== undefined) context.failures.push(`${volume}: ${result.connectionLost}`);
    if (context.failures.length > 0) return;
  }
}

export async function fioLoad(context: LoadContext, volume: string, flushes: boolean): Promise<void> {
  const sync = flushes ? ["--fsync=64"] : [];
  for (let seed = 1; !context.signal.aborted; seed += 1) {
    const target = ["--name=soak", "--ioengine=nbd", `--uri=${nbdUri(context.address, volume)}`];
    const pattern = [
      "--rw=randwrite",
      "--bsrange=512-256k",
      "--blockalign=512",
      "--iodepth=8",
      "--size=256M",
    ];
    const pace = ["--io_size=128M", "--rate=12m", `--randseed=${seed}`];
    const verify = ["--verify=crc32c", "--verify_interval=512", "--verify_fatal=1", "--verify_state_save=0"];
    await runFio([...target, ...pattern, ...pace, ...verify, ...sync], 300_000);
    context.counts.fioRuns += 1;
  }
}

/** A new ext4 with files each time, in by nbdcopy, out by nbdcopy, the same bytes, clean for e2fsck; then trimmed. */
export async function fileSystemLoad(context: LoadContext, volume: string): Promise<void> {
  const random = new SeededRandom(11);
  const image = join(context.dir, "soak-in.img");
  const copy = join(context.dir, "soak-out.img");
  const tree = join(context.dir, "soak-tree");
  const uri = nbdUri(context.address, volume);
  while (!context.signal.aborted) {
    await rm(tree, { recursive: true, force: true });
    await rm(image, { force: true });
    for (let folder = 0; folder < 8; folder += 1) {
      await mkdir(join(tree, `folder${folder}`), { recursive: true });
      for (let file = 0; file < 40; file += 1) {
        const bytes = Buffer.alloc(random.logUniform(100, 512 * 1024), random.uint32() & 0xff);
        await writeFile(join(tree, `folder${folder}`, `file${file}`), bytes);
      }
    }
    await run("mke2fs", ["-q", "-t", "ext4", "-d", tree, image, `${imageMiB}M`]);
    await run("nbdcopy", [image, uri]);
    await run("nbdcopy", [uri, copy]);
    if ((await hashOf(image)) !== (await hashOf(copy)))
      context.failures.push(`${volume}: ext4 image came back changed`);
    await run("e2fsck", ["-fn", copy]);
    const client = await NbdClient.connect(context.address, volume);
    await client.trim(0, client.size);
    await client.flush();
    await client.disconnect();
    context.counts.fileSystems += 1;
    await pauseMs(fileSystemRestMs);
  }
}

/**
 * Some twenty 4 KiB writes and reads a second on a volume of its own: what an idle guest beside the load feels. The same
 * write to a plain file on the same disk tells a slower Varve from a busier machine.
 */
export async function probeLoad(context: LoadContext, volume: string, window: ProbeWindow): Promise<void> {
  const client = await NbdClient.connect(context.address, volume);
  const random = new SeededRandom(5);
  const block = Buffer.alloc(4096, 0xa5);
  const control = await open(join(context.dir, "control"), "w");
  await control.writeFile(Buffer.alloc(2 ** 20));
  while (!context.signal.aborted) {
    const offset = random.between(0, client.size / 4096) * 4096;
    const beforeMs = performance.now();
    await client.write(offset, block);
    const writtenMs = performance.now();
    const found = await client.read(offset, block.length);
    window.writesMs.push(writtenMs - beforeMs);
    window.readsMs.push(performance.now() - writtenMs);
    const controlMs = performance.now();
    await control.write(block, 0, block.length, offset % 2 ** 20);
    await control.datasync();
    window.controlMs.push(performance.now() - controlMs);
    if (!found.equals(block)) context.failures.push(`${volume}: a block read back differs at ${offset}`);
    await pauseMs(50);
  }
  await control.close();
  await client.disconnect();
}

function pauseMs(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function hashOf(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}
