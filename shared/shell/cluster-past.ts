/*
 * The past of a cluster's volumes as a process reads it: the bucket that all of them share, and histories over it and the logs. Opened
 * by the cluster layers of gateway, api and archiver; without a bucket every question is refused with what to do.
 */
import { BucketImages } from "#shared/adapters/history/bucket-images.ts";
import { Histories } from "#shared/adapters/history/histories.ts";
import { RemoteHistories } from "#shared/adapters/history/remote-histories.ts";
import { openObjectStore } from "#shared/adapters/object-store/open-object-store.ts";
import { JetStreamLogFollower } from "#shared/adapters/write-log/jetstream-follower.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { ArchivedImages } from "#shared/ports/archived-images.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { VolumeHistory } from "#shared/ports/history.ts";
import type { LogFollower } from "#shared/ports/log-follower.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import type { NatsConfig } from "./cluster-config.ts";
import type { ClusterConnection } from "./cluster-connection.ts";

export interface ClusterPastParts {
  /** Null: none was given to this process. */
  readonly bucket: string | null;
  readonly nats: NatsConfig;
  readonly clock: Clock;
  readonly random: Random;
  readonly cluster: Pick<ClusterConnection, "connection" | "past">;
}

export interface ClusterPast {
  readonly store: ObjectStore | null;
  readonly histories: Histories | null;
  /** The bucket alone, as it is now. */
  readonly images: ArchivedImages | null;
  readonly logOf: (volumeId: string) => LogFollower;
  /** Throws Invalid where the volume has no past, or this process no bucket. */
  historyOf(record: VolumeRecord): VolumeHistory;
  /** Lets go of volumes that are not among these. */
  keepOnly(records: readonly VolumeRecord[]): void;
  close(): Promise<void>;
}

export async function openClusterPast(parts: ClusterPastParts): Promise<ClusterPast> {
  const { bucket, nats, clock, random, cluster } = parts;
  const { connection, past } = cluster;
  const { replicas, monitors } = nats;
  const logOf = (volumeId: string): LogFollower =>
    new JetStreamLogFollower({ connection, clock, random, volumeId, replicas, servers: { monitors } });
  if (bucket === null) {
    return {
      store: null,
      histories: null,
      images: null,
      logOf,
      historyOf: ({ name }) => {
        throw noBucket(name);
      },
      keepOnly: () => undefined,
      close: async () => undefined,
    };
  }
  const store = await openObjectStore(bucket, { clock, random, environment: process.env, create: false });
  const histories = new Histories({ store, clock });
  const remote = new RemoteHistories({ home: histories, store, past, logOf, clock });
  return {
    store,
    histories,
    images: new BucketImages({ place: store.place, clock, openStore: async () => store }),
    logOf,
    historyOf: (record) => {
      if (past.historyOf(record.id) === null) throw noPast(record.name);
      return remote.of(record);
    },
    keepOnly: (records) => remote.keepOnly(records),
    close: async () => {
      await histories.close();
      await store.close();
    },
  };
}

function noBucket(name: string): VarveError {
  return new VarveError("HistoryOffError", "Invalid", `the past of volume ${name} can't be read here`, {
    hint: "This process was started without --bucket. Give it the URL that the archivers have.",
    fields: { name },
  });
}

function noPast(name: string): VarveError {
  return new VarveError("HistoryOffError", "Invalid", `volume ${name} has no history: nothing archives it`, {
    hint: "Start a varve archiver; its history begins then.",
    fields: { name },
  });
}
