// Loads on a log of several machines, without NBD: the volume writer as the gateway has it over a JetStream log, and beside it
// what plain JetStream publishing reaches on the same servers. One figure a call. Caller: bench.ts.
import { DiscardPolicy, jetstream, jetstreamManager, StorageType } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { NativeFileStore } from "#shared/adapters/file-store/native.ts";
import { connectNats, serverLinks } from "#shared/adapters/nats/connect.ts";
import type { ServerLinks } from "#shared/adapters/nats/server-links.ts";
import { JetStreamWriteLog } from "#shared/adapters/write-log/jetstream-log.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { SlabPool } from "#shared/memory/slab-pool.ts";
import { Overlay } from "../../../services/gateway/engine/overlay.ts";
import { VolumeWriter } from "../../../services/gateway/engine/volume-writer.ts";
import { admitEverything } from "../../tools/admit-everything.ts";
import type { NatsServers } from "../../tools/nats-server.ts";

const GiB = 2 ** 30;

export interface Load {
  readonly servers: NatsServers;
  readonly replicas: number;
  readonly seconds: number;
  /** Bytes of one write or message, and how many are under way. */
  readonly bytes: number;
  readonly depth: number;
}

/** Writes (or messages) a second. */
export type Rate = number;

/** Each message is one publish of its own: no batching, no condition, the same stream settings. */
export async function plainPublishing(load: Load): Promise<Rate> {
  const connection = await connectNats({ servers: load.servers.addresses, name: "bench" });
  const name = `plain-${new SystemRandom().hex(4)}`;
  const manager = await jetstreamManager(connection, { timeout: 5000 });
  await manager.streams.add({
    name,
    subjects: [name],
    storage: StorageType.File,
    discard: DiscardPolicy.New,
    num_replicas: load.replicas,
    max_bytes: 8 * GiB,
  });
  const client = jetstream(connection);
  const body = filled(load.bytes);
  try {
    return await rateOf(load, async () => void (await client.publish(name, body, { timeout: 30_000 })));
  } finally {
    await manager.streams.delete(name);
    await connection.close();
  }
}

/** The same by the gateway's writer: each write answered when durable, offsets in order or anywhere. */
export async function volumeWriting(load: Load, place: "sequential" | "random"): Promise<Rate> {
  const options = { servers: load.servers.addresses, name: "bench" };
  const connection = await connectNats(options);
  const links = serverLinks(connection, options, new SystemClock());
  const volume = await openVolume(load, connection, links);
  const source = { bytes: filled(load.bytes), address: 0 };
  const blocks = Math.floor((64 * GiB) / load.bytes);
  let next = 0;
  const write = (): Promise<void> => {
    const block = place === "sequential" ? next++ % blocks : Math.floor(Math.random() * blocks);
    return volume.write(block * load.bytes, source);
  };
  try {
    return await rateOf(load, write);
  } finally {
    await volume.close();
    await links.close();
    await connection.close();
  }
}

async function openVolume(load: Load, connection: NatsConnection, links: ServerLinks) {
  const volumeId = new SystemRandom().hex(8);
  const log = new JetStreamWriteLog({
    connection,
    links,
    clock: new SystemClock(),
    random: new SystemRandom(),
    volumeId,
    replicas: load.replicas,
    logBytesMax: 8 * GiB,
    servers: { monitors: load.servers.monitors },
  });
  const pool = new SlabPool(new NativeFileStore(), new SystemClock(), limits.payloadBytesMax);
  const overlay = new Overlay();
  let volumeWriter: VolumeWriter | null = null;
  const fail = (error: VarveError): void => {
    throw error;
  };
  const writer = await log.open({
    writer: "bench",
    durability: "write",
    knownLsn: 0,
    listener: { stored: () => undefined, durable: (lsn) => volumeWriter?.durable(lsn), halted: fail },
  });
  volumeWriter = new VolumeWriter({
    log: writer,
    durability: "write",
    overlay,
    pool,
    admission: admitEverything,
    holdsSpace: () => true,
    onDurable: (batch) => {
      overlay.drop(batch);
      pool.release(batch.slab);
    },
    onRoomReturned: () => undefined,
  });
  const volume = volumeWriter;
  let inputEnds = false;
  return {
    /** As a connection hands it over: a small write is copied, a long one received into slots; then the round of input ends. */
    write: async (offset: number, source: { bytes: Buffer; address: number }): Promise<void> => {
      const done: Promise<void>[] = [];
      const completion = (): { complete: (error: VarveError | null) => void } => {
        const { promise, resolve, reject } = Promise.withResolvers<void>();
        done.push(promise);
        return { complete: (error) => (error === null ? resolve() : reject(error)) };
      };
      const { length } = source.bytes;
      if (length <= 32 * 1024) {
        if (!volume.write(offset, source, 0, length, false, completion())) throw new Error("no memory");
      } else {
        for (let at = 0; at < length; ) {
          const slot = volume.reserveWrite(length - at);
          if (slot === null) throw new Error("no memory");
          source.bytes.copy(slot.slab.bytes, slot.start, at, at + slot.length);
          volume.writeReserved(slot, offset + at, false, completion());
          at += slot.length;
        }
      }
      if (!inputEnds) {
        inputEnds = true;
        setImmediate(() => {
          inputEnds = false;
          volume.endOfInput(false);
        });
      }
      await Promise.all(done);
    },
    close: async (): Promise<void> => {
      await log.close();
      const manager = await jetstreamManager(connection);
      await manager.streams.delete(`varve-log-${volumeId}`);
    },
  };
}

/** Keeps `depth` of them under way for the load's time; the first half second does not count. */
export async function rateOf(load: Load, one: () => Promise<void>): Promise<Rate> {
  const warmMs = 500;
  const startMs = performance.now();
  const endMs = startMs + warmMs + load.seconds * 1000;
  let counted = 0;
  const lane = async (): Promise<void> => {
    for (;;) {
      await one();
      const nowMs = performance.now();
      if (nowMs >= endMs) return;
      if (nowMs >= startMs + warmMs) counted += 1;
    }
  };
  await Promise.all(Array.from({ length: load.depth }, lane));
  return counted / load.seconds;
}

/** Bytes that no store makes smaller. */
function filled(bytes: number): Buffer {
  const body = Buffer.alloc(bytes);
  for (let at = 0; at + 4 <= bytes; at += 4) body.writeUInt32LE((at * 2_654_435_761) >>> 0, at);
  return body;
}
