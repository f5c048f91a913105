// How long a snapshot of a 1 TiB volume takes through the API while fio writes all over it: at a steady rate, and as fast as it goes, when
// the disk's queue is always full. Beside it a lone writer of one durable block at a time says what the disk itself makes of such a
// moment. The API was used once before: it is built at its first request. Caller: bench.ts.

import { join } from "node:path";
import { percentile } from "../../soak/drift.ts";
import { FioRun } from "../../tools/fio.ts";
import { PastServer, succeed } from "../../tools/past-server.ts";
import { figuresOf, type Ground, pauseMs, round } from "./ground.ts";

const everyMs = 200;

interface Load {
  readonly id: string;
  readonly title: string;
  readonly fio: readonly string[];
}

const loads: readonly Load[] = [
  { id: "snapshot-1tib", title: "while 50 MB/s are written", fio: ["--rate=50m"] },
  { id: "snapshot-1tib-saturated", title: "while 16 writers write as fast as they can", fio: [] },
];

export async function measureSnapshots(ground: Ground): Promise<void> {
  for (const load of loads) {
    const rounds: Round[] = [];
    for (let number = 0; number < (ground.quick ? 1 : ground.pairs); number += 1)
      rounds.push(await measureUnder(ground, load));
    ground.announceLimit({
      id: load.id,
      title: `snapshot of a 1 TiB volume ${load.title}, p99`,
      unit: "ms",
      sense: "at most",
      target: 50,
      samples: rounds.map((one) => one.p99Ms),
      note: rounds.map((one) => one.note).join("; "),
    });
  }
}

interface Round {
  readonly p99Ms: number;
  readonly note: string;
}

async function measureUnder(ground: Ground, { id, fio }: Load): Promise<Round> {
  const count = ground.quick ? 10 : 50;
  // What the row before left behind is on the disk or gone, and not written in this one's time.
  ground.memory.fill();
  await succeed("sync");
  const server = await PastServer.start(["big:1T"], {
    args: ["--bucket", ground.s3.url(id)],
    env: ground.s3.env,
  });
  try {
    const seconds = Math.ceil((count * everyMs * 1.5) / 1000) + 6;
    const pattern = ["--rw=randwrite", "--bsrange=4k-64k", "--iodepth=16", "--size=1023G", "--norandommap"];
    const load = new FioRun(
      [
        "--name=load",
        "--ioengine=nbd",
        `--uri=${server.uri("big")}`,
        ...pattern,
        ...fio,
        "--refill_buffers",
        "--time_based",
        `--runtime=${seconds}`,
      ],
      (seconds + 60) * 1000,
    );
    const lone = new FioRun(
      [
        "--name=lone",
        `--filename=${join(server.directory, "lone")}`,
        "--rw=randwrite",
        "--bs=4k",
        "--size=16m",
        "--direct=1",
        "--sync=dsync",
        "--rate_iops=20",
        "--time_based",
        `--runtime=${seconds}`,
      ],
      (seconds + 60) * 1000,
    );
    await server.volume("big");
    await pauseMs(2000);
    const timesMs: number[] = [];
    for (let number = 0; number < count; number += 1) {
      const startedAtMs = performance.now();
      await server.snapshot("big", `s${number}`);
      timesMs.push(performance.now() - startedAtMs);
      await pauseMs(everyMs);
    }
    if (load.ended) throw new Error(`${id}: the load ended before the last snapshot`);
    const [job] = await load.jobs();
    const [alone] = await lone.jobs();
    const writes = `${Math.round(job?.write.iops ?? 0)} writes/s, ${round((job?.write.bytesPerSecond ?? 0) / 1e6)} MB/s meanwhile; a block written durably beside it: p50 ${round((alone?.write.p50Us ?? 0) / 1000)}, p99 ${round((alone?.write.p99Us ?? 0) / 1000)} ms`;
    return {
      p99Ms: round(percentile(timesMs, 0.99)),
      note: `${figuresOf(timesMs)}, from request to answer over HTTP; ${writes}`,
    };
  } finally {
    await server.end();
  }
}
