// The cases of the comparison: fio's pattern, which of Varve's volumes, which peers and the ratio that must be reached.
// Caller: bench.ts, which runs them in pairs (paired-runs.ts). Targets are the project's own, see docs/bench/.

import type { Unit } from "./results.ts";
import type { PeerName } from "./servers.ts";

export interface Against {
  readonly peer: PeerName;
  readonly target: number;
}

export interface Case {
  readonly id: string;
  readonly title: string;
  readonly volume: "write" | "flush";
  readonly fio: readonly string[];
  /** What the raw file needs to give the same promise. */
  readonly nativeFio: readonly string[];
  readonly unit: Extract<Unit, "requests/s" | "MB/s">;
  readonly against: readonly Against[];
  /** A figure that Varve must reach on its own on a machine of two cores and one disk. */
  readonly absoluteAtLeast?: number;
}

const durable = ["--sync=dsync"];

export const cases: readonly Case[] = [
  {
    id: "read-4k-d32",
    title: "4 KiB random read, depth 32",
    volume: "write",
    fio: ["--rw=randread", "--bs=4k", "--iodepth=32"],
    nativeFio: [],
    unit: "requests/s",
    against: [{ peer: "nbdkit", target: 1.2 }],
  },
  {
    id: "read-4k-d1",
    title: "4 KiB random read, depth 1",
    volume: "write",
    fio: ["--rw=randread", "--bs=4k", "--iodepth=1"],
    nativeFio: [],
    unit: "requests/s",
    against: [{ peer: "nbdkit", target: 0.8 }],
  },
  {
    id: "read-1m-d8",
    title: "1 MiB sequential read, depth 8",
    volume: "write",
    fio: ["--rw=read", "--bs=1M", "--iodepth=8"],
    nativeFio: [],
    unit: "MB/s",
    against: [{ peer: "nbdkit", target: 1.2 }],
    absoluteAtLeast: 100,
  },
  {
    id: "write-4k-d32-durable",
    title: "4 KiB random write, depth 32, durable",
    volume: "write",
    fio: ["--rw=randwrite", "--bs=4k", "--iodepth=32"],
    nativeFio: durable,
    unit: "requests/s",
    against: [
      { peer: "nbdkit-fua", target: 1.3 },
      { peer: "qemu-nbd", target: 4 },
      { peer: "nbd-server", target: 3 },
    ],
  },
  {
    id: "write-4k-d1-durable",
    title: "4 KiB random write, depth 1, durable",
    volume: "write",
    fio: ["--rw=randwrite", "--bs=4k", "--iodepth=1"],
    nativeFio: durable,
    unit: "requests/s",
    against: [{ peer: "nbdkit-fua", target: 0.9 }],
  },
  {
    id: "write-1m-d8-durable",
    title: "1 MiB sequential write, depth 8, durable",
    volume: "write",
    fio: ["--rw=write", "--bs=1M", "--iodepth=8"],
    nativeFio: durable,
    unit: "MB/s",
    against: [{ peer: "nbdkit-fua", target: 1.0 }],
    absoluteAtLeast: 100,
  },
  {
    id: "write-4k-d32-flush",
    title: "4 KiB random write, depth 32, durability flush",
    volume: "flush",
    fio: ["--rw=randwrite", "--bs=4k", "--iodepth=32"],
    nativeFio: [],
    unit: "requests/s",
    against: [{ peer: "nbdkit", target: 0.8 }],
  },
  {
    id: "write-4k-d32-fsync32",
    title: "the same with fsync every 32",
    volume: "flush",
    fio: ["--rw=randwrite", "--bs=4k", "--iodepth=32", "--fsync=32"],
    nativeFio: [],
    unit: "requests/s",
    against: [{ peer: "nbdkit", target: 1.2 }],
  },
  {
    id: "mixed-128k-d16-flush",
    title: "128 KiB random 70/30, depth 16, durability flush",
    volume: "flush",
    fio: ["--rw=randrw", "--rwmixread=70", "--bs=128k", "--iodepth=16"],
    nativeFio: [],
    unit: "requests/s",
    against: [{ peer: "nbdkit", target: 0.8 }],
  },
  {
    id: "read-4k-2x16",
    title: "4 KiB random read, 2 connections × depth 16",
    volume: "write",
    fio: ["--rw=randread", "--bs=4k", "--iodepth=16", "--numjobs=2"],
    nativeFio: [],
    unit: "requests/s",
    against: [{ peer: "nbdkit", target: 1.2 }],
  },
];
