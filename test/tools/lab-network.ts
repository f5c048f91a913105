// The network of a lab: every part on 127.0.0.1, or each in a network namespace of its own (scripts/cluster.sh makes them), where packets
// between any two parts can be dropped, also in one direction only, and links made slow. insideOwnNetwork() starts a program anew
// where it may do that: whatever it makes is gone with it. Callers: cluster-process.ts, nats-server.ts, test/cluster/nemesis*.ts.
import { execFile, spawn } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { repositoryDir } from "./varve-process.ts";

const run = promisify(execFile);
const insideVariable = "VARVE_TEST_OWN_NETWORK";

/** Where a part of a lab listens, and what goes in front of its command. */
export interface LabPlace {
  readonly host: string;
  readonly prefix: readonly string[];
}

export interface LabNetwork {
  place(part: string): LabPlace;
}

export const loopback: LabNetwork = { place: () => ({ host: "127.0.0.1", prefix: [] }) };

/** As scripts/cluster.sh has them. */
const hosts: Readonly<Record<string, string>> = {
  "nats-1": "10.83.0.11",
  "nats-2": "10.83.0.12",
  "nats-3": "10.83.0.13",
  "shelf-1": "10.83.0.21",
  "shelf-2": "10.83.0.22",
  "shelf-3": "10.83.0.23",
  "gate-1": "10.83.0.31",
  "gate-2": "10.83.0.32",
  front: "10.83.0.41",
  "keep-1": "10.83.0.51",
  "keep-2": "10.83.0.52",
  bucket: "10.83.0.61",
  client: "10.83.0.1",
};
export const labParts: readonly string[] = Object.keys(hosts);

/** Parts that share a machine's name with another one: gateways read images of a node there by themselves. All else is alone. */
const machines: Readonly<Record<string, string>> = { "shelf-1": "box-1", "gate-1": "box-1" };

export class NamespaceNetwork implements LabNetwork {
  static async make(): Promise<NamespaceNetwork> {
    await run(join(repositoryDir, "scripts", "cluster.sh"), ["net"]);
    return new NamespaceNetwork();
  }

  place(part: string): LabPlace {
    if (part === "client") return { host: hostOf(part), prefix: [] };
    const named = `hostname ${machines[part] ?? part} && exec "$@"`;
    const prefix = ["ip", "netns", "exec", `varve-${part}`, "unshare", "--uts", "sh", "-c", named, "sh"];
    return { host: hostOf(part), prefix };
  }

  /** What `from` sends does not arrive at `to`. `to` is not the client: for that way the gateway's sendings are dropped. */
  async drop(from: string, to: string, share = 1): Promise<void> {
    const some = share < 1 ? ["-m", "statistic", "--mode", "random", "--probability", String(share)] : [];
    if (to === "client") await this.#iptables(from, "-I", "OUTPUT", "-d", hostOf(to), ...some, "-j", "DROP");
    else await this.#iptables(to, "-I", "INPUT", "-s", hostOf(from), ...some, "-j", "DROP");
  }

  /** Neither hears the other. */
  async part(one: string, other: string): Promise<void> {
    await Promise.all([this.drop(one, other), this.drop(other, one)]);
  }

  /** What it sends arrives late: netem where the kernel has it, else a link so narrow that packets queue. */
  async slow(part: string): Promise<void> {
    const link = ["qdisc", "replace", "dev", "eth0", "root"];
    await this.#inside(part, "tc", ...link, "netem", "delay", "60ms", "30ms").catch(async () =>
      this.#inside(part, "tc", ...link, "tbf", "rate", "16mbit", "burst", "32kb", "latency", "400ms"),
    );
  }

  /** Links of 1 Gb/s and 0.15 ms each way for what they send; the milliseconds, 0 where the kernel has no netem. */
  async homeLinks(parts: readonly string[]): Promise<number> {
    const link = ["qdisc", "replace", "dev", "eth0", "root"];
    let delayMs = 0.15;
    for (const part of parts) {
      await this.#inside(part, "tc", ...link, "netem", "delay", "150us", "rate", "1gbit").catch(async () => {
        delayMs = 0;
        await this.#inside(part, "tc", ...link, "tbf", "rate", "1gbit", "burst", "128kb", "latency", "50ms");
      });
    }
    return delayMs;
  }

  /** Everything is let through again. */
  async heal(): Promise<void> {
    const parts = labParts.filter((part) => part !== "client");
    await Promise.all(
      parts.flatMap((part) => [
        this.#iptables(part, "-F"),
        this.#inside(part, "tc", "qdisc", "del", "dev", "eth0", "root").catch(() => undefined), // it was not slow
      ]),
    );
  }

  async #iptables(part: string, ...args: readonly string[]): Promise<void> {
    await this.#inside(part, "iptables", "-w", ...args);
  }

  async #inside(part: string, ...command: readonly string[]): Promise<void> {
    await run("ip", ["netns", "exec", `varve-${part}`, ...command]);
  }
}

/**
 * True: this process has a network of its own. Else the same program runs again in one, and this one ends as that does. Root, or a system
 * where users may make namespaces.
 */
export async function insideOwnNetwork(): Promise<boolean> {
  if (process.env[insideVariable] !== undefined) return true;
  const user = process.getuid?.() === 0 ? [] : ["--user", "--map-root-user"];
  const setUp = 'mount -t tmpfs tmpfs /run && ip link set lo up && exec "$@"';
  const again = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  const child = spawn("unshare", ["--net", "--mount", ...user, "sh", "-c", setUp, "sh", ...again], {
    stdio: "inherit",
    env: { ...process.env, [insideVariable]: "1" },
  });
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
  process.exitCode = await new Promise<number>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve(code ?? 1));
  });
  return false;
}

function hostOf(part: string): string {
  const host = hosts[part];
  if (host === undefined) throw new Error(`the network has no part ${part}`);
  return host;
}
