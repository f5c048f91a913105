// What the disk takes without Varve: fio writes the least that a server with a bucket writes under this load: the log, durably and into blocks
// that were written before, the image, and the bucket's objects. Where that falls behind, so must Varve. Caller: archive-rows.ts.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runFio } from "../../tools/fio.ts";

export interface DiskAlone {
  /** Of the log: what the writers would have got at the most. */
  readonly bytesPerSecond: number;
  readonly p99Ms: number;
}

/** `rate`: fio's, of the log and of the image; `objectBytesPerSecond`: what was put into the bucket by the run before. */
export async function measureDiskAlone(
  rate: string,
  objectBytesPerSecond: number,
  seconds: number,
): Promise<DiskAlone> {
  const directory = await mkdtemp(join(tmpdir(), "varve-bench-disk-"));
  try {
    const log = ["--name=log", "--rw=write", "--bs=512k", "--size=1G", "--overwrite=1", `--rate=${rate}`];
    const durable = ["--ioengine=libaio", "--iodepth=2", "--direct=1", "--sync=dsync"];
    const image = ["--name=image", "--rw=randwrite", "--norandommap", "--bs=128k", "--size=2G"];
    const paced = [`--rate=${rate}`, "--ioengine=psync", "--sync_file_range=write:16"];
    const objects = ["--name=objects", "--rw=write", "--bs=1M", "--size=1G", "--ioengine=psync", "--fsync=4"];
    // To fio a rate of 0 is none.
    const put = `--rate=${Math.max(1, Math.ceil(objectBytesPerSecond))}`;
    const all = [`--directory=${directory}`, "--time_based", `--runtime=${seconds}`, "--refill_buffers"];
    const jobs = await runFio(
      [...all, ...log, ...durable, ...image, ...paced, ...objects, put],
      (seconds + 60) * 1000,
    );
    const written = jobs.find(({ name }) => name === "log")?.write;
    if (written === undefined) throw new Error("fio reported no job named log");
    return { bytesPerSecond: written.bytesPerSecond, p99Ms: written.p99Us / 1000 };
  } finally {
    await rm(directory, { recursive: true });
  }
}
