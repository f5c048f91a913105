/*
 * Removes the files of replicas that placements give this node no more, once another node is proved to be as far. Called by
 * replica-set.ts at each look; what may not go yet stays and is looked at again. docs/specs/replica-fill.md, "Adding, moving, removing".
 */
import { replicaReadSubject } from "#shared/domain/cluster-subjects.ts";
import { checkpointPathOf, dataLayout, volumePaths } from "#shared/domain/data-layout.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { decodeCheckpoint, isBadCheckpoint } from "#shared/formats/checkpoint.ts";
import { decodeMessage, encodeMessage, isBadMessage } from "#shared/formats/replica-message.ts";
import type { ClusterMap } from "#shared/ports/cluster-map.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import type { OpenPool } from "./open-pool.ts";

export interface UnplacedSetting {
  readonly node: string;
  readonly pools: readonly OpenPool[];
  readonly store: FileStore;
  readonly catalog: Pick<VolumeCatalog, "list">;
  readonly map: Pick<ClusterMap, "placementOf">;
  readonly bus: MessageBus;
  readonly only: string | null;
  readonly onNote: (text: string) => void;
}

const answerMs = 1000;

/** Why files stay that should go. `isKept`: a replica of that volume is open or being opened here. */
export async function removeUnplaced(
  setting: UnplacedSetting,
  isKept: (volumeId: string) => boolean,
): Promise<readonly VarveError[]> {
  const { pools, store, catalog, map, node, only } = setting;
  const byName = new Map(
    catalog
      .list()
      .filter(({ name, state }) => state === "active" && (only === null || only === name))
      .map((record) => [record.name, record]),
  );
  const staying: VarveError[] = [];
  for (const pool of pools) {
    for (const name of await store.list(`${pool.dataDirectory}/${dataLayout.volumes}`)) {
      const record = byName.get(name);
      // What no volume of the catalogue has is nobody's to remove.
      if (record === undefined) continue;
      const placement = map.placementOf(record.id);
      const here = placement?.replicas.find((place) => place.node === node);
      if (placement === null || here?.pool === pool.name || isKept(record.id)) continue;
      const why = await removeFiles(
        setting,
        pool,
        record,
        placement.replicas.map((place) => place.node),
      );
      if (why !== null) staying.push(stays(name, why));
    }
  }
  return staying;
}

/** Null: gone, or not that volume's. Else why it stays. */
async function removeFiles(
  setting: UnplacedSetting,
  pool: OpenPool,
  record: VolumeRecord,
  nodes: readonly string[],
): Promise<string | null> {
  const { store, onNote, node } = setting;
  const paths = volumePaths(pool.dataDirectory, record.name);
  const bytes = await store.readWhole(checkpointPathOf(paths.image));
  let ownLsn = 0;
  if (bytes !== null) {
    const checkpoint = decodeCheckpoint(bytes);
    if (isBadCheckpoint(checkpoint)) return `its checkpoint can't be read (${checkpoint.detail})`;
    if (checkpoint.volumeId !== record.id) return null;
    ownLsn = checkpoint.appliedLsn;
  }
  const others = nodes.filter((one) => one !== node);
  const further = await Promise.all(
    others.map(async (other) => isFurther(setting, record.id, other, ownLsn)),
  );
  if (!further.includes(true)) return `no other node is proved to have what is in it (LSN ${ownLsn})`;
  // The checkpoint first: without it nothing that a crash leaves is taken for a replica.
  if (bytes !== null) {
    await store.remove(checkpointPathOf(paths.image));
    await store.syncDirectory(paths.directory);
  }
  await store.removeTree(paths.directory);
  onNote(`the replica of ${record.name} is removed: it is placed on ${others.join(", ")}`);
  return null;
}

/** What it applied and has not synced yet is in the log, which is kept for it. */
async function isFurther(
  { bus }: UnplacedSetting,
  volumeId: string,
  other: string,
  ownLsn: number,
): Promise<boolean> {
  try {
    const data = await bus.request(
      replicaReadSubject(volumeId, other),
      encodeMessage({ type: "ask" }),
      answerMs,
    );
    const decoded = decodeMessage(data);
    if (isBadMessage(decoded) || decoded.message.type !== "state") return false;
    const { condition, appliedLsn } = decoded.message.report;
    return condition === "following" && appliedLsn >= ownLsn;
  } catch {
    return false; // away: asked again
  }
}

function stays(name: string, why: string): VarveError {
  return new VarveError(
    "ReplicaFilesStay",
    "Retry",
    `files of ${name} stay, though its replica here was removed: ${why}`,
    {
      hint: "They go by themselves when another replica follows. See: varve replica list.",
      fields: { name },
    },
  );
}
