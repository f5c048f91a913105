/*
 * What every process of a cluster has: its connection to NATS, the shared tables on it, catalogue, map and message bus. Opened by the
 * layers of gateway, storage, archiver and api (services/); see docs/specs/cluster.md.
 */
import type { NatsConnection } from "@nats-io/transport-node";
import { KeyTableMap } from "#shared/adapters/cluster-map/key-table.ts";
import { JetStreamKeyTable } from "#shared/adapters/key-table/jetstream-kv.ts";
import { NatsMessageBus } from "#shared/adapters/message-bus/nats.ts";
import { connectNats, serverLinks } from "#shared/adapters/nats/connect.ts";
import type { ServerLinks } from "#shared/adapters/nats/server-links.ts";
import { KeyTablePastRecords } from "#shared/adapters/past-records/key-table.ts";
import { KeyTableCatalog } from "#shared/adapters/volume-catalog/key-table.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { KeyTable } from "#shared/ports/key-table.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import type { NatsConfig } from "./cluster-config.ts";

export interface ClusterConnection {
  readonly connection: NatsConnection;
  /** To single servers beside it. */
  readonly links: ServerLinks;
  readonly bus: MessageBus;
  readonly catalog: KeyTableCatalog;
  readonly map: KeyTableMap;
  readonly past: KeyTablePastRecords;
  readonly leaseTable: KeyTable;
  /** Null while the connection is up, else what to tell who asks why nothing works. */
  missing(): string | null;
  close(): Promise<void>;
}

/** A process that starts with the servers waits for them so long. */
const startMs = 30_000;
const againMs = 500;
const drainMs = 2000;

/** Connects, makes the tables where they are missing, and reads the catalogue. Rejects Retry after 30 s without NATS. */
export async function openCluster(
  nats: NatsConfig,
  name: string,
  clock: Clock,
  onNote: (text: string) => void,
): Promise<ClusterConnection> {
  const { servers, user, password } = nats;
  const login = { ...(user === undefined ? {} : { user }), ...(password === undefined ? {} : { password }) };
  const options = { servers, name, ...login };
  let told = false;
  const connection = await patiently(
    clock,
    async () => connectNats(options),
    (error) => {
      if (!told) onNote(`waiting for NATS: ${error.message}`);
      told = true;
    },
  );
  const links = serverLinks(connection, options, clock);
  try {
    const table = async (bucket: string): Promise<JetStreamKeyTable> =>
      patiently(clock, async () =>
        JetStreamKeyTable.open({ connection, clock, bucket, replicas: nats.replicas }),
      );
    const catalogTable = await table("varve_catalog");
    const leaseTable = await table("varve_leases");
    const catalog = new KeyTableCatalog(catalogTable);
    await patiently(clock, async () => catalog.load());
    const map = new KeyTableMap(catalogTable, clock);
    const past = new KeyTablePastRecords(catalogTable);
    await heard(clock, catalogTable, Promise.all([map.ready(), past.ready()]));
    for (const records of [map, past]) records.onError((error) => onNote(`warning: ${error.message}`));
    return {
      connection,
      links,
      bus: new NatsMessageBus(connection),
      catalog,
      map,
      past,
      leaseTable,
      missing: () =>
        connection.isClosed()
          ? "the connection to NATS is closed"
          : ((catalogTable.failure ?? leaseTable.failure)?.message ?? null),
      close: async () => {
        catalog.close();
        map.close();
        past.close();
        await links.close();
        await closeConnection(connection);
      },
    };
  } catch (cause) {
    await closeConnection(connection);
    throw cause;
  }
}

/** Rejects Retry where a table's watches have not caught up within startMs, with why. */
async function heard(clock: Clock, table: JetStreamKeyTable, caughtUp: Promise<unknown>): Promise<void> {
  let cancel = (): void => undefined;
  const late = new Promise<never>((_, reject) => {
    const timer = clock.after(startMs, () => {
      const nothing = new VarveError("KeyTableAway", "Retry", "the tables in NATS were not read in time", {
        hint: "Look whether the NATS servers run with JetStream, and what they log.",
      });
      reject(table.failure ?? nothing);
    });
    cancel = () => timer.cancel();
  });
  try {
    await Promise.race([caughtUp, late]);
  } finally {
    cancel();
  }
}

/** What is on its way goes out, if the servers are there. */
async function closeConnection(connection: NatsConnection): Promise<void> {
  const late = setTimeout(() => void connection.close(), drainMs);
  await connection.flush().catch(() => undefined);
  await connection.close();
  clearTimeout(late);
}

/** Tries again while the failure says Retry, for startMs. */
async function patiently<T>(
  clock: Clock,
  work: () => Promise<T>,
  onRetry: (error: VarveError) => void = () => undefined,
): Promise<T> {
  const endMs = clock.monotonicMs() + startMs;
  for (;;) {
    try {
      return await work();
    } catch (cause) {
      if (!(cause instanceof VarveError) || cause.kind !== "Retry" || clock.monotonicMs() > endMs)
        throw cause;
      onRetry(cause);
    }
    await new Promise<void>((resolve) => {
      clock.after(againMs, resolve);
    });
  }
}
