/*
 * The connection to NATS that a process shares: log, catalogue, replica reads. Shell and tests open it; adapters get it. It
 * comes back by itself for as long as the process lives, so that whoever uses it only sees requests that take longer.
 */
import { readFileSync } from "node:fs";
import { type ConnectionOptions, errors, type NatsConnection } from "@nats-io/transport-node";
import { VarveError } from "#shared/domain/errors.ts";
import type { Clock } from "#shared/ports/clock.ts";
import { connectTransport } from "./message-transport.ts";
import { ServerLinks } from "./server-links.ts";

export interface NatsOptions {
  /** host:port of one server or more; the others of the cluster are learned. */
  readonly servers: readonly string[];
  /** Shown by the servers' monitoring. */
  readonly name: string;
  readonly user?: string;
  readonly password?: string;
  readonly token?: string;
  /** This server alone: no other is learned, and a connection that is lost is closed. */
  readonly single?: boolean;
  readonly tls?: { readonly caFile?: string; readonly certFile?: string; readonly keyFile?: string };
}

/** A paused server is noticed after two of these. */
const pingMs = 1_500;
const connectMs = 3_000;
const reconnectMs = 100;

/** Rejects Retry where no server answers, Invalid where they refuse who asks. */
export async function connectNats(options: NatsOptions): Promise<NatsConnection> {
  const { servers, name, user, password, token } = options;
  const settings: ConnectionOptions = {
    servers: [...servers],
    name,
    timeout: connectMs,
    pingInterval: pingMs,
    maxPingOut: 2,
    maxReconnectAttempts: -1,
    reconnectTimeWait: reconnectMs,
    noAsyncTraces: true,
    ignoreAuthErrorAbort: true,
  };
  if (options.single === true) {
    settings.reconnect = false;
    settings.ignoreClusterUpdates = true;
  }
  if (user !== undefined) settings.user = user;
  if (password !== undefined) settings.pass = password;
  if (token !== undefined) settings.token = token;
  if (options.tls !== undefined) settings.tls = readTls(options.tls);
  try {
    return await connectTransport(settings);
  } catch (cause) {
    throw connectError(servers, cause);
  }
}

/** Connections to single servers beside that one, made as it was. */
export function serverLinks(shared: NatsConnection, options: NatsOptions, clock: Clock): ServerLinks {
  const name = `${options.name}, to one server`;
  return new ServerLinks({
    clock,
    addresses: () => [...options.servers, ...(shared.info?.connect_urls ?? [])],
    connect: async (address) => connectNats({ ...options, servers: [address], name, single: true }),
  });
}

function readTls(tls: NonNullable<NatsOptions["tls"]>): NonNullable<ConnectionOptions["tls"]> {
  const { caFile, certFile, keyFile } = tls;
  return {
    ...(caFile === undefined ? {} : { ca: readFileSync(caFile, "utf8") }),
    ...(certFile === undefined ? {} : { cert: readFileSync(certFile, "utf8") }),
    ...(keyFile === undefined ? {} : { key: readFileSync(keyFile, "utf8") }),
  };
}

function connectError(servers: readonly string[], cause: unknown): VarveError {
  const where = servers.join(", ");
  const said = cause instanceof Error ? cause.message : String(cause);
  if (cause instanceof errors.AuthorizationError || cause instanceof errors.UserAuthenticationExpiredError) {
    return new VarveError("NatsRefused", "Invalid", `NATS at ${where} refuses the connection: ${said}`, {
      hint: "Give the user and password (or token) that the servers' configuration has.",
      fields: { servers: where },
      cause,
    });
  }
  return new VarveError("NatsAway", "Retry", `NATS does not answer at ${where}: ${said}`, {
    hint: "Start the servers, or correct the addresses. Varve tries again.",
    fields: { servers: where },
    cause,
  });
}
