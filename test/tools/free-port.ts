// TCP ports of 127.0.0.1 that nobody listens on now, for servers that are told their port before they start. Below the range that the kernel
// gives to outgoing connections (32768 and up by default): one of those would take the port before the server has it. Each is the
// asking process's own until it ends: a server may be told its ports a second before it listens, and starts again on the same.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";

const lowest = 10_000;
const highest = 32_000;
const triesMax = 200;
/** A file for each port that was given, named after it, with the pid of the process it is of. */
export const portClaims = join(tmpdir(), `varve-test-ports-${userInfo().uid}`);

const own = new Set<string>();
process.on("exit", () => {
  for (const path of own) rmSync(path, { force: true });
});

export async function freePort(): Promise<number> {
  const [port] = await freePorts(1);
  if (port === undefined) throw new Error("no port");
  return port;
}

export async function freePorts(count: number): Promise<readonly number[]> {
  const ports: number[] = [];
  for (let tries = 0; ports.length < count; tries += 1) {
    if (tries === triesMax + count) throw new Error(`no ${count} free ports from ${lowest} to ${highest}`);
    const port = lowest + Math.floor(Math.random() * (highest - lowest));
    if (claim(port) && (await nobodyListens(port))) ports.push(port);
  }
  return ports;
}

/** False where it is another's. What a killed process left is removed, and is free for the next who asks. */
function claim(port: number): boolean {
  mkdirSync(portClaims, { recursive: true });
  const path = join(portClaims, String(port));
  try {
    writeFileSync(path, String(process.pid), { flag: "wx" });
  } catch {
    if (!own.has(path) && !isAlive(path)) rmSync(path, { force: true });
    return false;
  }
  own.add(path);
  return true;
}

function isAlive(path: string): boolean {
  try {
    const pid = Number(readFileSync(path, "utf8"));
    // Empty while it is being written: pid 0 would be the own process group.
    return pid === 0 || process.kill(pid, 0);
  } catch {
    return false;
  }
}

async function nobodyListens(port: number): Promise<boolean> {
  const probe: Server = createServer();
  return await new Promise((resolve) => {
    probe.once("error", () => resolve(false));
    probe.listen(port, "127.0.0.1", () => probe.close(() => resolve(true)));
  });
}
