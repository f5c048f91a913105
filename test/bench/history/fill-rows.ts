// How fast a volume comes back whole: the fill of a rescue and of a clone, against what the same S3 server gives the plain AWS client right
// before and right after. Content that does not compress, so that a byte of disk is a byte of object. Caller: bench.ts.

import { PastServer, succeed } from "../../tools/past-server.ts";
import { repositoryDir } from "../../tools/varve-process.ts";
import type { Pair } from "../results.ts";
import { difference, type Ground, pauseMs, requestsOf, round, withStore } from "./ground.ts";
import { MadeVolume } from "./made-volume.ts";
import { environment } from "./point-rows.ts";
import { downloadRate, downloadsAtOnce } from "./s3-download.ts";

const MiB = 2 ** 20;

export async function measureFills(ground: Ground): Promise<void> {
  const bytes = (ground.quick ? 256 : 2048) * MiB;
  const rescues: Pair[] = [];
  const clones: Pair[] = [];
  for (let pair = 0; pair < ground.pairs; pair += 1) {
    const prefix = `fill${pair}`;
    const made = await withStore(ground, prefix, async (store) =>
      MadeVolume.make(store, {
        name: "disk",
        volumeId: `00000000000000e${pair}`,
        sizeBytes: bytes,
        writtenBytes: bytes,
        distinctChunks: bytes / (4 * MiB),
        logBytes: MiB,
      }),
    );
    const server = await PastServer.prepare([], {
      args: ["--bucket", ground.s3.url(prefix)],
      env: ground.s3.env,
    });
    try {
      const rates = [await downloadRate(ground.s3, prefix, made.chunkKeys)];
      const varve = `${repositoryDir}/bin/varve`;
      await succeed(
        "env",
        ...environment(ground),
        varve,
        "rescue",
        "--bucket",
        ground.s3.url(prefix),
        "--data",
        server.dataDir,
      );
      rescues.push(
        await timeFill(ground, server, "disk", bytes, rates, async () => void (await server.up())),
      );
      rates.push(await downloadRate(ground.s3, prefix, made.chunkKeys));
      await settled(server);
      clones.push(
        await timeFill(ground, server, "copy", bytes, rates, async () => {
          await server.clone("disk", `lsn:${made.lastLsn}`, "copy");
        }),
      );
    } finally {
      await server.end();
    }
  }
  const against = `AWS client, ${downloadsAtOnce} GETs of 4 MiB at once, into memory`;
  const common = { against, unit: "MB/s", sense: "at least", target: 0.7, native: undefined } as const;
  const size = `${bytes / MiB} MiB in ${bytes / MiB / 4} different chunks that do not compress; Varve's figure ends when the image is whole, synced and checkpointed`;
  ground.announceRatio({
    ...common,
    id: "fill-rescue",
    title: "fill after a rescue",
    pairs: rescues,
    note: size,
  });
  ground.announceRatio({ ...common, id: "fill-clone", title: "fill of a clone", pairs: clones });
}

/** From `begin` until nothing is remote; the AWS client's rate is the last one measured. */
async function timeFill(
  ground: Ground,
  server: PastServer,
  volume: string,
  bytes: number,
  rates: readonly number[],
  begin: () => Promise<void>,
): Promise<Pair> {
  const startedAtMs = performance.now();
  await begin();
  const before = await requestsOf(server);
  for (;;) {
    const { past } = await server.volume(volume);
    const job = past?.job ?? null;
    if (past?.extents?.remote === 0 && (job === null || (await isDone(server, job)))) break;
    await pauseMs(50);
  }
  const seconds = (performance.now() - startedAtMs) / 1000;
  const requests = difference(await requestsOf(server), before);
  const varve = bytes / 1e6 / seconds;
  const peer = rates.at(-1) ?? Number.NaN;
  if (rates.length === 1) {
    ground.announceRequests({
      id: "restored",
      title: "restored: a rescued volume filled",
      bytes,
      seconds,
      requests,
    });
  }
  return { varve: round(varve), peer: round(peer), ratio: varve / peer };
}

async function isDone(server: PastServer, job: string): Promise<boolean> {
  const { state, failure } = await server.ok<{ state: string; failure: unknown }>("GET", `/jobs/${job}`);
  if (state === "failed") throw new Error(`the fill failed: ${JSON.stringify(failure)}`);
  return state !== "running";
}

/** Its image's pages are on the disk, so that the next run does not pay for them. */
async function settled(server: PastServer): Promise<void> {
  await succeed("sync", "--file-system", server.dataDir);
  await pauseMs(500);
}
