// TCP ports of 127.0.0.1 that nobody listens on now. For tests that start servers by a configuration file.
import { createServer } from "node:net";

export async function freePort(): Promise<number> {
  const [port] = await freePorts(1);
  if (port === undefined) throw new Error("no port");
  return port;
}

/** Each another: all are held until the last is found. */
export async function freePorts(count: number): Promise<readonly number[]> {
  const probes = Array.from({ length: count }, () => createServer());
  const listening = probes.map(async (probe) => {
    await new Promise<void>((resolve) => {
      probe.listen(0, "127.0.0.1", resolve);
    });
    const address = probe.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    return address.port;
  });
  const ports = await Promise.all(listening);
  for (const probe of probes) {
    await new Promise((resolve) => {
      probe.close(resolve);
    });
  }
  return ports;
}
