// TCP ports of 127.0.0.1 that nobody listens on now, for servers that are told their port before they start. Below the range that the kernel
// gives to outgoing connections (32768 and up by default): one of those would take the port before the server has it.
import { createServer, type Server } from "node:net";

const lowest = 10_000;
const highest = 32_000;
const triesMax = 200;

export async function freePort(): Promise<number> {
  const [port] = await freePorts(1);
  if (port === undefined) throw new Error("no port");
  return port;
}

/** Each another: all are held until the last is found. */
export async function freePorts(count: number): Promise<readonly number[]> {
  const held: Server[] = [];
  const ports: number[] = [];
  try {
    for (let tries = 0; ports.length < count; tries += 1) {
      if (tries === triesMax + count) throw new Error(`no ${count} free ports from ${lowest} to ${highest}`);
      const port = lowest + Math.floor(Math.random() * (highest - lowest));
      const probe = await listenAt(port);
      if (probe === null) continue;
      held.push(probe);
      ports.push(port);
    }
  } finally {
    await Promise.all(held.map(async (probe) => new Promise((resolve) => probe.close(resolve))));
  }
  return ports;
}

/** Null where somebody else has it. */
async function listenAt(port: number): Promise<Server | null> {
  const probe = createServer();
  return await new Promise((resolve) => {
    probe.once("error", () => resolve(null));
    probe.listen(port, "127.0.0.1", () => resolve(probe));
  });
}
