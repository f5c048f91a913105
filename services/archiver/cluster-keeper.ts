/*
 * The keeper of a cluster's bucket in an archiver process: every archiver lets history leave the manifests of the volumes that it archives,
 * one of them collects the bucket. Opened by cluster-layer.ts; engines: bucket-keeper.ts, collector-turn.ts, collect-calls.ts.
 * Rules: docs/specs/cluster.md#the-end-of-history.
 */
import { bucketCollectSubject } from "#shared/domain/cluster-subjects.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { HistoryHome } from "#shared/ports/history-home.ts";
import type { KeptVolume } from "#shared/ports/kept-volume.ts";
import type { Leases } from "#shared/ports/lease.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import { CollectCalls } from "./engine/collect-calls.ts";
import { CollectorTurn } from "./engine/collector-turn.ts";
import { openKeeper } from "./keeper-layer.ts";
import type { Archiver } from "./layer.ts";

export interface ClusterKeeperSetup {
  /** Name of this archiver process. */
  readonly name: string;
  readonly store: ObjectStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly leases: Pick<Leases, "take">;
  readonly bus: MessageBus;
  readonly catalog: Pick<VolumeCatalog, "fetch">;
  readonly archiver: Archiver;
  readonly histories: HistoryHome;
  readonly kept: () => readonly KeptVolume[];
  readonly allocateSlab: (bytes: number) => Slab;
  readonly onNote: (text: string) => void;
  /** For tests, which can't wait for hours until something may be deleted. */
  readonly graceMs: number | null;
}

export interface ClusterKeeper {
  /** Whether this process collects the bucket now. */
  collects(): boolean;
  close(): Promise<void>;
}

export function openClusterKeeper(setup: ClusterKeeperSetup): ClusterKeeper {
  const { name, clock, leases, bus, graceMs, onNote } = setup;
  const keeper = openKeeper({
    ...setup,
    who: `archiver ${name}`,
    isCollector: () => turn.isMine,
    // Readers are other processes: what they need beyond the window is theirs to pin.
    pointsInUse: () => [],
    startJob: () => {
      throw inApi();
    },
    bringBack: async () => {
      throw inApi();
    },
    // By the catalogue as its leader has it: a volume that is being undeleted is in it before the bucket is touched.
    isKnown: async (volumeId) => (await setup.catalog.fetch(volumeId)) !== null,
    bucketBytesMax: null,
    ...(graceMs === null ? {} : { grace: { supersededManifestMs: graceMs, unnamedObjectMs: graceMs } }),
  });
  const calls = new CollectCalls(async (options) => keeper.collectNow(options));
  const turn = new CollectorTurn({
    name,
    clock,
    leases,
    begin: () => {
      const served = bus.serve(bucketCollectSubject, async (data) => calls.answer(data));
      return () => served.close();
    },
    onNote,
  });
  turn.start();
  return {
    collects: () => turn.isMine,
    close: async () => {
      await keeper.close();
      await turn.close();
    },
  };
}

function inApi(): VarveError {
  return new VarveError("NotInArchiver", "Internal", "an archiver process has no jobs", {
    hint: "The api process of the cluster has them.",
  });
}
