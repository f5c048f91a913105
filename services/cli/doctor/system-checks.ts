/*
 * What doctor asks of Node, kernel, clock and process limits. Called by commands/doctor.ts; reads /proc and the process,
 * writes nothing.
 */
import { readFileSync } from "node:fs";
import { availableParallelism, release, totalmem } from "node:os";
import { readableByteSize } from "#shared/domain/byte-size.ts";
import { limits } from "#shared/domain/limits.ts";
import { type Finding, fail, ok, warn } from "./finding.ts";

const nodeMajorMin = 24;
/** preadv2 with RWF_NOWAIT on buffered files. */
const kernelMin: readonly [number, number] = [4, 14];
/** Each NBD connection is one; volumes hold image, checkpoint and log segments. */
const filesMin = 4096;
const threadsMin = 16;
const memoryBytesMin = 512 * 2 ** 20;
/** A clock before this was never set. */
const yearMin = 2026;

export function systemChecks(): readonly Finding[] {
  return [checkNode(), checkKernel(), checkMemory(), checkOpenFiles(), checkThreads(), checkClock()];
}

function checkNode(): Finding {
  const { node } = process.versions;
  if (Number(node.split(".")[0]) >= nodeMajorMin) return ok("node", node);
  return fail(
    "node",
    node,
    `Varve needs Node ${nodeMajorMin}: run npm ci, and start it as bin/varve or npx varve.`,
  );
}

function checkKernel(): Finding {
  const found = release();
  if (process.platform !== "linux")
    return fail("kernel", `${process.platform} ${found}`, "Varve runs on Linux only.");
  const [major = 0, minor = 0] = found.split(".").map((part) => Number.parseInt(part, 10));
  const [majorMin, minorMin] = kernelMin;
  if (major > majorMin || (major === majorMin && minor >= minorMin)) return ok("kernel", found);
  return fail("kernel", found, `Linux ${majorMin}.${minorMin} or newer is needed (preadv2 with RWF_NOWAIT).`);
}

function checkMemory(): Finding {
  const text = `${readableByteSize(totalmem())}, ${availableParallelism()} CPUs`;
  if (totalmem() >= memoryBytesMin) return ok("memory", text);
  const payload = readableByteSize(limits.payloadBytesMax);
  return warn("memory", text, `Varve may use ${payload} for payloads alone; lower it with --payload-max.`);
}

function checkOpenFiles(): Finding {
  const line = /^Max open files\s+(\d+|unlimited)/m.exec(readFileSync("/proc/self/limits", "utf8"));
  const soft = line?.[1] === "unlimited" ? Number.POSITIVE_INFINITY : Number(line?.[1] ?? 0);
  if (soft >= filesMin) return ok("open files", String(soft));
  return warn(
    "open files",
    String(soft),
    `Raise the limit with ulimit -n ${filesMin}, or LimitNOFILE= in systemd.`,
  );
}

function checkThreads(): Finding {
  const threads = Number(process.env["UV_THREADPOOL_SIZE"] ?? 4);
  if (threads >= threadsMin) return ok("thread pool", `${threads} threads`);
  return warn(
    "thread pool",
    `${threads} threads`,
    `Cold reads and log syncs share it: set UV_THREADPOOL_SIZE=32, or unset it and start by bin/varve.`,
  );
}

function checkClock(): Finding {
  const now = new Date();
  if (now.getFullYear() >= yearMin) return ok("clock", now.toISOString());
  return warn("clock", now.toISOString(), "Set the clock (NTP): the history of volumes is found by time.");
}
