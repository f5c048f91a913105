// What the tests of the JetStream log share: a connection that ends with its test, a log with a volume of its own on it, and the
// slabs that drafts are made in. Callers: test/nats.
import { jetstreamManager } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { connectNats, serverLinks } from "#shared/adapters/nats/connect.ts";
import type { ServerLinks } from "#shared/adapters/nats/server-links.ts";
import { JetStreamLogFollower } from "#shared/adapters/write-log/jetstream-follower.ts";
import { JetStreamWriteLog } from "#shared/adapters/write-log/jetstream-log.ts";
import type { JetStreamLogParts } from "#shared/adapters/write-log/jetstream-parts.ts";
import type { LogOpenOptions } from "#shared/ports/write-log.ts";
import { RecordingListener } from "../contract/write-log-drafts.ts";
import type { NatsNode, NatsServers } from "../tools/nats-server.ts";

export const allocate = (bytes: number) => ({ bytes: Buffer.alloc(bytes), address: 0 });

/** Of a gateway's connections beside the shared one, as the servers' monitoring shows them. */
export const ownConnectionName = "test, to one server";

export function newVolumeId(): string {
  return new SystemRandom().hex(8);
}

/** One volume on servers, seen by as many gateways as a test wants, each with a connection of its own. */
export class LogLab {
  readonly servers: NatsServers;
  readonly volumeId: string;
  readonly replicas: number;
  readonly #connections: NatsConnection[] = [];
  readonly #links: ServerLinks[] = [];
  /** For looks at who leads. */
  #looks: NatsConnection | null = null;

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

  /** As a gateway has them. */
  links(connection: NatsConnection, addresses = this.servers.addresses): ServerLinks {
    const links = serverLinks(connection, { servers: addresses, name: "test" }, new SystemClock());
    this.#links.push(links);
    return links;
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
    const links = this.links(connection, addresses);
    const log = new JetStreamWriteLog(this.parts(connection, { links, ...parts }));
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

  /** The server that leads the stream, when one does. */
  async leader(): Promise<NatsNode> {
    this.#looks ??= await this.connect();
    const manager = await jetstreamManager(this.#looks, { timeout: 300, checkAPI: false });
    for (;;) {
      const name = await manager.streams.info(this.stream).then(
        ({ cluster }) => cluster?.leader ?? "",
        () => "",
      );
      if (name !== "") return this.servers.named(name);
      await new Promise((resolve) => {
        setTimeout(resolve, 20);
      });
    }
  }

  /** Another server leads from now on. */
  async moveLeader(): Promise<void> {
    const { name } = await this.leader();
    const subject = `$JS.API.STREAM.LEADER.STEPDOWN.${this.stream}`;
    await this.#looks?.request(subject, "", { timeout: 5000 });
    while ((await this.leader()).name === name);
  }

  /** Messages that came to that server over connections of gateways beside their shared ones. */
  async ownMessagesAt(node: NatsNode): Promise<number> {
    const answer = await fetch(`${node.monitor}/connz`);
    const { connections } = (await answer.json()) as {
      connections: readonly { name?: string; in_msgs: number }[];
    };
    const own = connections.filter(({ name }) => name === ownConnectionName);
    return own.reduce((sum, one) => sum + one.in_msgs, 0);
  }

  async close(): Promise<void> {
    await Promise.all(this.#links.map((links) => links.close()));
    await Promise.all(this.#connections.map((connection) => connection.close()));
  }
}
