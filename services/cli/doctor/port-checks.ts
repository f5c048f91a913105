/*
 * Are the addresses free that `varve up` would listen on, and if not, who has them. Called by commands/doctor.ts. Listens
 * for a moment on each; the holder of a busy TCP port is looked up in /proc.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { createServer } from "node:net";
import { addressText, isLoopback, type ListenAddress } from "#shared/shell/listen-address.ts";
import { listenError } from "#shared/shell/listen-error.ts";
import { type Finding, fail, ok, warn } from "./finding.ts";

/** `serverPid`: a Varve that runs on the data directory in question; its own ports are as they should be. */
export async function checkAddress(
  flag: "--nbd" | "--http",
  address: ListenAddress,
  serverPid: number | null,
): Promise<Finding> {
  const subject = flag === "--nbd" ? "nbd address" : "http address";
  const text = addressText(address);
  const failure = await tryListen(address);
  if (failure === null) {
    if (isLoopback(address)) return ok(subject, `${text} is free`);
    return warn(
      subject,
      `${text} is free, and reachable from the network`,
      "There is no TLS and no token: keep it in a trusted network.",
    );
  }
  const holder = failure.code === "EADDRINUSE" && address.kind === "tcp" ? holderOf(address.port) : null;
  if (holder !== null && holder.pid === serverPid)
    return ok(subject, `${text} is served by Varve, pid ${serverPid}`);
  const error = listenError(flag, address, failure);
  const who = holder === null ? "" : ` (${holder.command}, pid ${holder.pid})`;
  return fail(subject, `${text}${error.message.slice(`${flag} ${text}`.length)}${who}`, error.hint);
}

async function tryListen(address: ListenAddress): Promise<NodeJS.ErrnoException | null> {
  // A socket file in the way is no obstacle where nobody listens on it; the NBD listener replaces it.
  if (address.kind === "unix") return null;
  const server = createServer();
  const failure = await new Promise<NodeJS.ErrnoException | null>((resolve) => {
    server.once("error", resolve);
    server.listen({ host: address.host, port: address.port, exclusive: true }, () => resolve(null));
  });
  if (failure === null) await new Promise((resolve) => server.close(resolve));
  return failure;
}

/** Who listens on a TCP port, as far as this user may see it. */
function holderOf(port: number): { readonly pid: number; readonly command: string } | null {
  const inodes = new Set(["/proc/net/tcp", "/proc/net/tcp6"].flatMap((path) => listeningInodes(path, port)));
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    if (!socketsOf(pid).some((inode) => inodes.has(inode))) continue;
    return { pid: Number(pid), command: readText(`/proc/${pid}/comm`).trim() };
  }
  return null;
}

/** Socket inodes in state LISTEN (0A) on the port. */
function listeningInodes(path: string, port: number): string[] {
  const wanted = port.toString(16).toUpperCase().padStart(4, "0");
  return readText(path)
    .split("\n")
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[1]?.endsWith(`:${wanted}`) === true && fields[3] === "0A")
    .map((fields) => fields[9] ?? "");
}

function socketsOf(pid: string): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      const match = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`));
      return match?.[1] === undefined ? [] : [match[1]];
    });
  } catch {
    // Another user's process, or one that ended meanwhile: it can't be named, which is what null says.
    return [];
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
