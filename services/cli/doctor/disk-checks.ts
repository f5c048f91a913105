/*
 * Can the file system under a data directory do what log and image need, and how fast is a durable write. Works in a
 * temporary directory beside the data (removed at the end) with the same FileStore that serves volumes. Called by
 * commands/doctor.ts.
 */
import { statfs } from "node:fs/promises";
import { readableByteSize } from "#shared/domain/byte-size.ts";
import { limits } from "#shared/domain/limits.ts";
import type { BlockFile, FileStore } from "#shared/ports/file-store.ts";
import { type Finding, fail, ok, warn } from "./finding.ts";

const probeBytes = 1024 * 1024;
const probes = 200;
const syncMsWarn = 10;
const syncMsFail = 1000;
/** No medium that keeps data over a power cut answers a sync faster. */
const syncMsTooGood = 0.02;
const freeShareWarn = 0.05;
const freeBytesWarn = 4 * 2 ** 30;

interface FileSystemKind {
  readonly name: string;
  readonly advice?: string;
}

const copyOnWrite =
  "It copies on write: log and image fragment. Switch that off for DATA (chattr +C) or use ext4 or xfs.";
const fileSystems: Readonly<Record<number, FileSystemKind>> = {
  0xef53: { name: "ext4" },
  0x58465342: { name: "xfs" },
  0x9123683e: { name: "btrfs", advice: copyOnWrite },
  0x2fc12fc1: { name: "zfs", advice: copyOnWrite },
  0x01021994: { name: "tmpfs", advice: "It is memory: everything is lost at power-off. Use a disk." },
  0x6969: { name: "nfs", advice: "Durability and locks depend on its server. Use a local disk." },
  0xff534d42: { name: "cifs", advice: "Durability and locks depend on its server. Use a local disk." },
  0x65735546: { name: "fuse", advice: "Durability depends on the program behind it. Use a local disk." },
  0x01021997: { name: "9p", advice: "Durability depends on the host behind it. Use a local disk." },
  0x794c7630: { name: "overlay", advice: "A container's own layer: use a volume or a bind mount for DATA." },
};

/** `directory` exists; `place` is how messages call it. */
export async function diskChecks(
  store: FileStore,
  directory: string,
  place: string,
): Promise<readonly Finding[]> {
  const findings = [await checkFileSystem(directory, place), await checkSpace(store, directory)];
  const scratch = `${directory}/.varve-doctor-${process.pid}`;
  await store.makeDirectory(scratch);
  try {
    const file = await store.open(`${scratch}/probe`, { create: true, access: "direct" });
    try {
      findings.push(checkDirect(file), await checkHoles(store, file), await checkSync(store, file));
    } finally {
      await file.close();
    }
  } finally {
    await store.removeTree(scratch);
  }
  return findings;
}

async function checkFileSystem(directory: string, place: string): Promise<Finding> {
  const { type } = await statfs(directory);
  const kind = fileSystems[type];
  if (kind === undefined) {
    return warn(
      "file system",
      `${place}: type 0x${type.toString(16)}`,
      "Not known to Varve; ext4 and xfs are tested.",
    );
  }
  if (kind.advice === undefined) return ok("file system", `${place}: ${kind.name}`);
  return warn("file system", `${place}: ${kind.name}`, kind.advice);
}

async function checkSpace(store: FileStore, directory: string): Promise<Finding> {
  const { freeBytes, totalBytes } = await store.freeSpace(directory);
  const found = `${readableByteSize(freeBytes)} of ${readableByteSize(totalBytes)} free`;
  if (freeBytes < limits.reserveBytes + 4 * limits.logSegmentBytes) {
    return fail("free space", found, "Too little for a log and its reserve: free some, or use another disk.");
  }
  if (freeBytes < freeBytesWarn || freeBytes < totalBytes * freeShareWarn) {
    return warn("free space", found, "Volumes are thin: writes will be refused when the disk is full.");
  }
  return ok("free space", found);
}

function checkDirect(file: BlockFile): Finding {
  if (file.direct) return ok("direct writes", "O_DIRECT works");
  return warn(
    "direct writes",
    "O_DIRECT is refused",
    "The log goes through the page cache: slower, still safe.",
  );
}

async function checkHoles(store: FileStore, file: BlockFile): Promise<Finding> {
  const slab = store.allocateSlab(probeBytes);
  slab.bytes.fill(0x56);
  await file.write([{ slab, start: 0, length: probeBytes }], 0);
  await file.sync();
  const hole = { offset: probeBytes / 4, length: probeBytes / 2 };
  try {
    await file.applyAll([{ kind: "punch", ...hole }]);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    return fail(
      "holes",
      `punching a hole failed: ${why}`,
      "Trim needs fallocate(PUNCH_HOLE): use ext4 or xfs.",
    );
  }
  if (file.nextHole(0) === hole.offset && file.nextData(hole.offset) === hole.offset + hole.length) {
    return ok("holes", "PUNCH_HOLE and SEEK_HOLE work");
  }
  return warn(
    "holes",
    "SEEK_HOLE does not show a punched hole",
    "Allocation is reported coarsely; nothing is lost.",
  );
}

async function checkSync(store: FileStore, file: BlockFile): Promise<Finding> {
  const slab = store.allocateSlab(limits.blockBytes);
  const times: number[] = [];
  for (let probe = 0; probe < probes; probe++) {
    const startMs = performance.now();
    await file.writeDurable([{ slab, start: 0, length: limits.blockBytes }], 0);
    times.push(performance.now() - startMs);
  }
  times.sort((a, b) => a - b);
  const at = (share: number): number => times[Math.floor(times.length * share)] ?? 0;
  const found = `durable 4 KiB write: p50 ${at(0.5).toFixed(2)} ms, p99 ${at(0.99).toFixed(2)} ms`;
  if (at(0.5) < syncMsTooGood) {
    return warn(
      "sync time",
      found,
      "Too fast to be true: does this disk, or the hypervisor's cache, really sync?",
    );
  }
  if (at(0.5) > syncMsFail)
    return fail("sync time", found, "Each durable write waits that long: use another disk.");
  if (at(0.99) > syncMsWarn)
    return warn("sync time", found, "Each durable write waits that long; an SSD takes well below 1 ms.");
  return ok("sync time", found);
}
