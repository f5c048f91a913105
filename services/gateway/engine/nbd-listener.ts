/*
 * One address that NBD clients connect to: TCP host and port, or a unix path (mode 0660, a stale socket file removed only
 * when nobody answers there). Each accepted socket is wrapped again so that it reads into memory of ours. Owned by
 * nbd-server.ts, which makes a connection of what arrives here.
 */
import { chmod, lstat, rm } from "node:fs/promises";
import { connect, createServer, type OnReadOpts, type Server, Socket } from "node:net";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";

export type NbdAddress =
  | { readonly host: string; readonly port: number }
  /** A unix socket's path; `mode` of its file, 0o660 if not said. */
  | { readonly path: string; readonly mode?: number };

/** What is known of a socket before anything is read from it. */
export interface AcceptedSocket {
  readonly peer: string;
  /** A unix socket. */
  readonly local: boolean;
  /** Its descriptor, or -1. */
  readonly fd: number;
  /** The socket itself, reading as `onread` says from its first resume() on. */
  wrap(onread: OnReadOpts): Socket;
  refuse(): void;
}

interface DescriptorHandle {
  readonly fd?: number;
}

export class NbdListener {
  readonly address: NbdAddress;
  private readonly server: Server;

  private constructor(address: NbdAddress, server: Server) {
    this.address = address;
    this.server = server;
  }

  static async listen(wanted: NbdAddress, accept: (socket: AcceptedSocket) => void): Promise<NbdListener> {
    // Keep-alive finds clients whose machine is gone; an idle one is never closed otherwise.
    const server = createServer({
      pauseOnConnect: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: limits.nbdKeepAliveMs,
      allowHalfOpen: true,
    });
    server.on("connection", (socket) => accept(acceptedSocket(socket, wanted)));
    if ("path" in wanted) await removeStaleSocket(wanted.path);
    await new Promise<void>((resolve, reject) => {
      server.once("error", (cause) => reject(listenError(wanted, cause)));
      if ("path" in wanted) server.listen({ path: wanted.path, backlog: 128 }, resolve);
      else server.listen({ host: wanted.host, port: wanted.port, backlog: 128 }, resolve);
    });
    if ("path" in wanted) await chmod(wanted.path, wanted.mode ?? 0o660);
    return new NbdListener(actualAddress(wanted, server), server);
  }

  /** Accepts nobody from now on. Open connections are not touched. A unix socket's file is removed. */
  close(): void {
    this.server.close();
  }
}

/** `host:port` or `unix:path`, as `varve up --nbd` takes it. */
export function addressText(address: NbdAddress): string {
  if ("path" in address) return `unix:${address.path}`;
  return address.host.includes(":") ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}

function actualAddress(wanted: NbdAddress, server: Server): NbdAddress {
  const bound = server.address();
  if ("path" in wanted || bound === null || typeof bound === "string") return wanted;
  return { host: wanted.host, port: bound.port };
}

function acceptedSocket(socket: Socket, address: NbdAddress): AcceptedSocket {
  const peer =
    "path" in address ? addressText(address) : `${socket.remoteAddress ?? "?"}:${socket.remotePort ?? 0}`;
  const inner = socket as Socket & { _handle: DescriptorHandle | null };
  const handle = inner._handle;
  return {
    peer,
    local: "path" in address,
    fd: handle?.fd ?? -1,
    wrap(onread) {
      // The handle moves to a socket that reads into our memory; the first wrapper is an empty shell from here on.
      inner._handle = null;
      const options = { handle, onread, allowHalfOpen: true, pauseOnCreate: true };
      return new Socket(options as object);
    },
    refuse: () => socket.destroy(),
  };
}

/** A socket file that a dead process left behind is in the way; one that somebody answers on is not ours to remove. */
async function removeStaleSocket(path: string): Promise<void> {
  const facts = await lstat(path).catch(() => null);
  if (facts === null) return;
  if (!facts.isSocket()) {
    throw new VarveError("NbdListenError", "Invalid", `${path} exists and is no socket`, {
      hint: "Give another path for the NBD socket, or move that file away.",
      fields: { path },
    });
  }
  const answered = await new Promise<boolean>((resolve) => {
    const probe = connect({ path });
    probe.once("connect", () => resolve(true));
    probe.once("error", () => resolve(false));
    probe.once("close", () => probe.destroy());
    probe.once("connect", () => probe.destroy());
  });
  if (answered) {
    throw new VarveError("NbdListenError", "Invalid", `another server listens on unix:${path}`, {
      hint: "Stop it, or give another path.",
      fields: { path },
    });
  }
  await rm(path, { force: true });
}

function listenError(address: NbdAddress, cause: Error & { code?: string }): VarveError {
  const text = addressText(address);
  const code = cause.code ?? "";
  const hints: Readonly<Record<string, string>> = {
    EADDRINUSE: "Another program listens there. Stop it, or give another port.",
    EADDRNOTAVAIL: "This machine does not have that address. Use 127.0.0.1 or 0.0.0.0.",
    EACCES: "Ports below 1024 and foreign directories need rights. Give another address.",
    ENOENT: "The directory of the socket does not exist. Create it.",
    ENOTFOUND: "The host name is not known. Use an IP address.",
  };
  return new VarveError("NbdListenError", "Invalid", `cannot listen on ${text}: ${code}`, {
    hint: hints[code] ?? "Give another address.",
    fields: { address: text, code },
    cause,
  });
}
