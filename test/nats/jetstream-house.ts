// What the tests of the JetStream log share: a connection that ends with its test, a log with a volume of its own on it, and the
// slabs that drafts are made in. Callers: test/nats.
import { jetstreamManager } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { connectNats } from "#shared/adapters/nats/connect.ts";
import { JetStreamLogFollower } from "#shared/adapters/write-log/jetstream-follower.ts";
import { JetStreamWriteLog } from "#shared/adapters/write-log/jetstream-log.ts";
import type { JetStreamLogParts } from "#shared/adapters/write-log/jetstream-parts.ts";
import type { LogOpenOptions } from "#shared/ports/write-log.ts";
import { RecordingListener } from "../contract/write-log-drafts.ts";
import type { NatsServers } from "../tools/nats-server.ts";

export const allocate = (bytes: number) => ({ bytes: Buffer.alloc(bytes), address: 0 });

export function newVolumeId(): string {
  return new SystemRandom().hex(8);
}

/** One volume on servers, seen by as many gateways as a test wants, each with a connection of its own. */
export class LogLab {
  readonly servers: NatsServers;
  readonly volumeId: string;
  readonly replicas: number;
  readonly #connections: NatsConnection[] = [];

  constructor(servers: NatsServers, replicas = 1) {
    this.servers = servers;
    this.volumeId = newVolumeId();
    this.replicas = replicas;
  }

  get stream(): string {
    return `varve-log-${this.volumeId}`;
  }

  subject(epoch: number): string {
    return `varve.log.${this.volumeId}.e${epoch}`;
  }

  async connect(addresses: readonly string[] = this.servers.addresses): Promise<NatsConnection> {
    const connection = await connectNats({ servers: addresses, name: "test" });
    this.#connections.push(connection);
    return connection;
  }

  parts(connection: NatsConnection, change: Partial<JetStreamLogParts> = {}): JetStreamLogParts {
    return {
      connection,
      clock: new SystemClock(),
      random: new SystemRandom(),
      volumeId: this.volumeId,
      replicas: this.replicas,
      logBytesMax: 1024 * 1024 * 1024,
      servers: { monitors: this.servers.monitors },
      ...change,
    };
  }

  /** A gateway: its own connection, an open writer, and what it heard. */
  async gateway(
    change: Partial<JetStreamLogParts> & { readonly addresses?: readonly string[] } = {},
    options: Partial<LogOpenOptions> = {},
  ) {
    const { addresses, ...parts } = change;
    const connection = await this.connect(addresses);
    const log = new JetStreamWriteLog(this.parts(connection, parts));
    const listener = new RecordingListener();
    const writer = await log.open({
      writer: "test",
      durability: "write",
      listener,
      knownLsn: 0,
      ...options,
    });
    return { connection, log, listener, writer };
  }

  async follower(change: Partial<JetStreamLogParts> = {}): Promise<JetStreamLogFollower> {
    return new JetStreamLogFollower(this.parts(await this.connect(), change));
  }

  async manager() {
    return await jetstreamManager(await this.connect());
  }

  async close(): Promise<void> {
    await Promise.all(this.#connections.map((connection) => connection.close()));
  }
}
