// A 1 TiB volume with 100 GiB written that is only in the bucket: rescue, `vol@point`, clone; how long until the first read is answered,
// and how much memory the server takes with all of that open and being read. Caller: bench.ts.

import { NbdClient } from "../../tools/nbd-client.ts";
import { PastServer, succeed } from "../../tools/past-server.ts";
import { repositoryDir } from "../../tools/varve-process.ts";
import { type Ground, pauseMs, round, withStore } from "./ground.ts";
import { MadeVolume } from "./made-volume.ts";

const GiB = 2 ** 30;
const TiB = 2 ** 40;
const prefix = "terabyte";
const name = "big";

export async function measurePoints(ground: Ground): Promise<void> {
  const made = await withStore(ground, prefix, async (store) =>
    MadeVolume.make(store, {
      name,
      volumeId: "00000000000000d1",
      sizeBytes: TiB,
      writtenBytes: (ground.quick ? 4 : 100) * GiB,
      distinctChunks: ground.quick ? 16 : 64,
      logBytes: ground.quick ? 64 * 2 ** 20 : GiB,
    }),
  );
  const what = `${made.options.writtenBytes / GiB} GiB of 1 TiB in ${made.chunkKeys.length} chunks that repeat, ${made.options.logBytes / 2 ** 20} MiB of log behind the base; ${round(made.objectBytes / 2 ** 20)} MiB in the bucket`;
  ground.say(`made: ${what}`);
  const bucket = ground.s3.url(prefix);
  const server = await PastServer.prepare([], { args: ["--bucket", bucket], env: ground.s3.env });
  const peaksMiB: number[] = [];
  try {
    const rescued = await measureRescue(ground, server, made, bucket);
    peaksMiB.push(peakOf(server));
    await server.call("PATCH", `/volumes/${name}`, { residency: "tiered" });
    const samples = ground.quick ? 1 : 3;
    const exported: number[] = [];
    const cloned: number[] = [];
    for (let sample = 0; sample < samples; sample += 1) {
      // A server that has just started knows nothing of the bucket yet.
      await again(server);
      exported.push(await timeExport(server, made, made.lastLsn - sample));
      peaksMiB.push(peakOf(server));
      await again(server);
      cloned.push(await timeClone(server, made, `clone${sample}`));
      peaksMiB.push(peakOf(server));
    }
    await again(server);
    const read = await readMuch(ground, server, made);
    peaksMiB.push(peakOf(server));
    announce(
      ground,
      "point-open",
      "first read of vol@lsn:N, from connecting on, nothing cached",
      exported,
      what,
    );
    announce(
      ground,
      "clone-open",
      "first read of a writable clone, from the request that makes it on",
      cloned,
      "a server just started; it fills in the background meanwhile",
    );
    announce(
      ground,
      "rescue-open",
      "first read of the rescued volume, from connecting on",
      [rescued.firstReadMs],
      `varve rescue took ${round(rescued.rescueMs / 1000)} s with its start, varve up ${round(rescued.upMs / 1000)} s until ready`,
    );
    ground.announceLimit({
      id: "past-memory",
      title:
        "peak memory of the server with that volume rescued, filled, cloned, and five of its points read",
      unit: "MiB",
      sense: "at most",
      target: 400,
      samples: [Math.max(...peaksMiB)],
      note: `VmHWM of ${peaksMiB.length} server lives: ${peaksMiB.map(round).join(", ")}; ${read}`,
    });
  } finally {
    await server.end();
  }
}

function announce(ground: Ground, id: string, title: string, timesMs: readonly number[], note: string): void {
  const samples = timesMs.map((ms) => Math.round(ms) / 1000);
  ground.announceLimit({
    id,
    title: `1 TiB: ${title}`,
    unit: "s",
    sense: "at most",
    target: 2,
    samples,
    note,
  });
}

async function measureRescue(ground: Ground, server: PastServer, made: MadeVolume, bucket: string) {
  const startedAtMs = performance.now();
  const program = `${repositoryDir}/bin/varve`;
  await succeed(
    "env",
    ...environment(ground),
    program,
    "rescue",
    "--bucket",
    bucket,
    "--data",
    server.dataDir,
  );
  const rescuedAtMs = performance.now();
  const { readyAfterMs } = await server.up();
  const firstReadMs = await timeFirstReads(server, name, made);
  ground.say(
    `rescued in ${Math.round(rescuedAtMs - startedAtMs)} ms, ready after ${Math.round(readyAfterMs)} ms, first read ${Math.round(firstReadMs)} ms`,
  );
  await pauseMs(ground.quick ? 2000 : 10_000);
  return { rescueMs: rescuedAtMs - startedAtMs, upMs: readyAfterMs, firstReadMs };
}

export function environment(ground: Ground): string[] {
  return Object.entries(ground.s3.env).map(([key, value]) => `${key}=${value}`);
}

/** One block of data, one that the log wrote, one hole; the time of the slowest way there is that of the first. */
async function timeFirstReads(server: PastServer, exportName: string, made: MadeVolume): Promise<number> {
  const startedAtMs = performance.now();
  const client = await NbdClient.connect(server.nbd, exportName);
  const places = [made.extentOffset(made.extents >> 1) + 40_960, made.logOffsets().at(100) ?? 0, 5 * 2 ** 22];
  let firstMs = 0;
  for (const offset of places) {
    const found = await client.read(offset, 4096);
    if (firstMs === 0) firstMs = performance.now() - startedAtMs;
    const mistake = made.mistake(offset, found);
    if (mistake !== null) throw new Error(`${exportName}: ${mistake}`);
  }
  await client.disconnect();
  return firstMs;
}

async function timeExport(server: PastServer, made: MadeVolume, lsn: number): Promise<number> {
  return await timeFirstReads(server, `${name}@lsn:${lsn}`, made);
}

async function timeClone(server: PastServer, made: MadeVolume, clone: string): Promise<number> {
  const startedAtMs = performance.now();
  await server.clone(name, `lsn:${made.lastLsn}`, clone);
  const madeAtMs = performance.now();
  const readMs = await timeFirstReads(server, clone, made);
  await server.call("PATCH", `/volumes/${clone}`, { residency: "tiered" });
  return madeAtMs - startedAtMs + readMs;
}

/** Four points and the volume itself, each read by several readers at once. */
async function readMuch(ground: Ground, server: PastServer, made: MadeVolume): Promise<string> {
  const points = [0.01, 0.3, 0.6, 0.9].map((share) => made.lastLsn - Math.floor(share * made.logLsns));
  const exports = [name, ...points.map((lsn) => `${name}@lsn:${lsn}`)];
  const reads = ground.quick ? 20 : 200;
  let bytes = 0;
  const work = exports.map(async (exportName, nth) => {
    const client = await NbdClient.connect(server.nbd, exportName);
    const readers = Array.from({ length: 4 }, async (_, reader) => {
      for (let count = 0; count < reads; count += 1) {
        const length = count % 2 === 0 ? 2 ** 20 : 65_536;
        const offset = made.extentOffset(nth * 5003 + reader * 1009 + count * 17);
        const found = await client.read(offset, length);
        bytes += found.length;
      }
    });
    await Promise.all(readers);
    await client.disconnect();
  });
  await Promise.all(work);
  return `${round(bytes / 2 ** 30)} GiB read from ${exports.length} exports by four readers each`;
}

async function again(server: PastServer): Promise<void> {
  await server.stop();
  await server.up();
}

function peakOf(server: PastServer): number {
  return Math.round(server.process.usage().rssPeakBytes / 2 ** 20);
}
