// How long a snapshot of a 1 TiB volume takes through the API while fio writes all over it. Caller: bench.ts.

import { percentile } from "../../soak/drift.ts";
import { FioRun } from "../../tools/fio.ts";
import { PastServer } from "../../tools/past-server.ts";
import { figuresOf, type Ground, pauseMs, round } from "./ground.ts";

const everyMs = 200;

export async function measureSnapshots(ground: Ground): Promise<void> {
  const count = ground.quick ? 10 : 50;
  const server = await PastServer.start(["big:1T"], {
    args: ["--bucket", ground.s3.url("snapshots")],
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
        "--refill_buffers",
        "--time_based",
        `--runtime=${seconds}`,
      ],
      (seconds + 60) * 1000,
    );
    await pauseMs(2000);
    const timesMs: number[] = [];
    for (let number = 0; number < count; number += 1) {
      const startedAtMs = performance.now();
      await server.snapshot("big", `s${number}`);
      timesMs.push(performance.now() - startedAtMs);
      await pauseMs(everyMs);
    }
    if (load.ended) throw new Error("snapshot-1tib: the load ended before the last snapshot");
    const [job] = await load.jobs();
    const writes = `${Math.round(job?.write.iops ?? 0)} writes/s, ${round((job?.write.bytesPerSecond ?? 0) / 1e6)} MB/s meanwhile`;
    ground.announceLimit({
      id: "snapshot-1tib",
      title: "snapshot of a 1 TiB volume under load, p99",
      unit: "ms",
      sense: "at most",
      target: 50,
      samples: [round(percentile(timesMs, 0.99))],
      note: `${figuresOf(timesMs)}, from request to answer over HTTP; ${writes}`,
    });
  } finally {
    await server.end();
  }
}
