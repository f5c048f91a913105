/*
 * The volumes, nodes and leases of a cluster, as its api process shows and changes them: placements are chosen here, images are made by
 * the nodes, logs by the gateways. The HTTP routes call it through its ports. See docs/specs/cluster.md.
 *
 *   create: creating ─placed─► active        delete: cluster-deletion.ts
 */
import type { LeaseRecord, PoolOrder } from "#shared/domain/cluster.ts";
import { replicaStateSubject, volumeHolderSubject } from "#shared/domain/cluster-subjects.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { newHistoryRecord } from "#shared/domain/history-record.ts";
import { limits } from "#shared/domain/limits.ts";
import { placeReplicas, placesTooSmall } from "#shared/domain/placement.ts";
import type { ReplicaReport } from "#shared/domain/replica-report.ts";
import {
  checkVolumeName,
  checkVolumeSize,
  type ReadPolicy,
  shrinkNotAllowed,
  type VolumeDurability,
  type VolumeRecord,
} from "#shared/domain/volume.ts";
import { newVolumeRecord, noOrders, type OrdersChange, orderedFrom } from "#shared/domain/volume-orders.ts";
import { decodeMessage, encodeMessage, isBadMessage } from "#shared/formats/replica-message.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type {
  AttachmentView,
  ClusterAdministration,
  NodeView,
  ReplicaView,
} from "#shared/ports/cluster-administration.ts";
import type { ClusterMap } from "#shared/ports/cluster-map.ts";
import type { Leases } from "#shared/ports/lease.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import type { PastRecords } from "#shared/ports/past-records.ts";
import type {
  ImageReport,
  NewVolume,
  VolumeAdministration,
  VolumeView,
} from "#shared/ports/volume-administration.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import { madeOf, replicaCount, stillUnfinished } from "./arrivals.ts";
import { ClusterDeletion } from "./cluster-deletion.ts";
import {
  noHistory,
  notYet,
  refuseSettling,
  stillServed,
  tooLargeForFiles,
  volumeSettling,
  writeOnly,
} from "./cluster-errors.ts";
import { clusterPastView } from "./cluster-past-view.ts";
import { requireNode, requirePools } from "./node-rules.ts";

export interface ClusterVolumesOptions {
  readonly catalog: VolumeCatalog;
  readonly map: ClusterMap;
  readonly leases: Leases;
  readonly bus: MessageBus;
  readonly clock: Clock;
  readonly random: Random;
  readonly past: PastRecords;
  /** New volumes keep their past from their first entry on: an archiver has to hold the log before it goes. */
  readonly archived: boolean;
  /** Removes the log of a volume whose images are gone. */
  readonly removeLog: (volumeId: string) => Promise<void>;
  /** See ClusterShrink. */
  readonly shrink: (record: VolumeRecord, sizeBytes: number) => Promise<void>;
}

const resizedMs = 30_000;

export class ClusterVolumes implements VolumeAdministration, ClusterAdministration {
  readonly #options: ClusterVolumesOptions;
  readonly #deletion: ClusterDeletion;
  readonly #reports = new Map<string, { readonly report: ReplicaReport; readonly atMs: number }>();

  constructor(options: ClusterVolumesOptions) {
    this.#options = options;
    this.#deletion = new ClusterDeletion({
      ...options,
      replicasOf: (record) => this.replicasOf(record),
      serving: (id) => this.#serving(id),
    });
    options.bus.subscribe(replicaStateSubject("*", "*"), (data, subject) => {
      const decoded = decodeMessage(data);
      if (isBadMessage(decoded) || decoded.message.type !== "state") return;
      const { report } = decoded.message;
      this.#reports.set(keyOf(subject.split(".")[2] ?? "", report.node), {
        report,
        atMs: options.clock.monotonicMs(),
      });
    });
  }

  list(): readonly VolumeView[] {
    return this.#options.catalog
      .list()
      .filter(({ state }) => state !== "deleting")
      .map((record) => this.#view(record));
  }

  show(name: string): VolumeView {
    const found = this.#options.catalog.find(name);
    return this.#view(found?.state === "settling" ? found : (this.#unfinished(name) ?? this.require(name)));
  }

  async create(volume: NewVolume): Promise<VolumeView> {
    const { catalog, map, clock, random, past, archived } = this.#options;
    checkVolumeName(volume.name);
    refuseSettling(catalog, volume.name);
    checkVolumeSize(volume.sizeBytes);
    if (volume.durability !== "write") throw writeOnly(volume.name);
    const replicas = volume.replicas ?? 1;
    const policy = Object.keys(volume.policy ?? {});
    if (!archived && policy.length > 0) throw noHistory(volume.name);
    if (!(replicas >= 1 && replicas <= limits.replicasMax)) throw replicaCount(replicas);
    const record: VolumeRecord = {
      ...newVolumeRecord(volume, random.hex(8), clock.wallTimeMs()),
      ...(volume.reads === "strict" ? { reads: "strict" } : {}),
    };
    const places = placeReplicas(
      { sizeBytes: record.sizeBytes, replicas, tags: record.orders?.tags ?? [] },
      this.ground(),
    );
    await catalog.put(record);
    try {
      const placement = { volumeId: record.id, beginBytes: record.sizeBytes, replicas: places };
      await map.changePlacement(record.id, () => placement);
      if (archived) {
        const history = { ...newHistoryRecord(record.id, record.sizeBytes), ...volume.policy };
        await past.changeHistory(record.id, () => history);
      }
      await catalog.change(record.id, (present) => madeOf(present, "active"));
    } catch (cause) {
      // Nobody was told that it exists. Where even this fails, or the process ends here, delete() takes it away.
      await this.#deletion.forget(record.id).catch(() => undefined);
      throw cause;
    }
    return this.show(record.name);
  }

  /** Also of one whose making nobody ended. */
  async delete(name: string): Promise<void> {
    const found = this.#options.catalog.find(name);
    await this.#deletion.delete(
      found?.state === "settling" ? found : (this.#unfinished(name) ?? this.require(name)),
    );
  }

  /** Ends deletions whose nodes are done. Called now and then. */
  async finishDeletions(): Promise<void> {
    await this.#deletion.finishAll();
  }

  /** Of a larger one the gateway that serves it appends the entry, of a smaller one this process, while nobody is attached. */
  async resize(name: string, sizeBytes: number, shrink = false): Promise<VolumeView> {
    const record = this.require(name);
    checkVolumeSize(sizeBytes);
    if (sizeBytes < record.sizeBytes) {
      if (!shrink) throw shrinkNotAllowed(name, record.sizeBytes, sizeBytes);
      await this.#options.shrink(record, sizeBytes);
      return this.show(name);
    }
    this.#requireRoomInFiles(record, sizeBytes);
    if (this.#serving(record.id) === null) throw servedByNobody(name);
    const request = encodeMessage({ type: "resize", sizeBytes });
    const data = await this.#options.bus.request(volumeHolderSubject(record.id), request, resizedMs);
    const answer = decodeMessage(data);
    if (isBadMessage(answer)) throw new VarveError("HolderAnswerError", "Retry", answer.detail);
    const { message } = answer;
    if (message.type === "refused") {
      throw new VarveError(message.tag, message.kind, message.message, { hint: "Nothing was changed." });
    }
    const grown = (one: VolumeRecord): number => Math.max(one.sizeBytes, sizeBytes);
    await this.#options.catalog.change(record.id, (one) => ({ ...one, sizeBytes: grown(one) }));
    return this.show(name);
  }

  /** Before the log has an entry that an image can't follow. */
  #requireRoomInFiles({ id, name }: VolumeRecord, sizeBytes: number): void {
    const { map } = this.#options;
    const places = map.placementOf(id)?.replicas ?? [];
    const nodes = map.nodes().map(({ record }) => record);
    const why = placesTooSmall(sizeBytes, places, nodes);
    if (why.length > 0) throw tooLargeForFiles(name, sizeBytes, why);
  }

  async setDurability(name: string, durability: VolumeDurability): Promise<VolumeView> {
    const record = this.require(name);
    if (durability !== "write") throw writeOnly(name);
    const lease = this.#serving(record.id);
    if (lease !== null) throw stillServed(name, lease);
    await this.#options.catalog.change(record.id, (one) => ({ ...one, durability }));
    return this.show(name);
  }

  async setReads(name: string, reads: ReadPolicy): Promise<VolumeView> {
    await this.#options.catalog.change(this.require(name).id, (one) => ({ ...one, reads }));
    return this.show(name);
  }

  async setOrders(name: string, change: OrdersChange): Promise<VolumeView> {
    const edit = (one: VolumeRecord) => ({ ...one, orders: orderedFrom(one.orders ?? noOrders, change) });
    await this.#options.catalog.change(this.require(name).id, edit);
    return this.show(name);
  }

  async checkImage(name: string): Promise<ImageReport> {
    throw notYet(this.require(name).name, "checked");
  }

  async adoptImage(name: string): Promise<ImageReport> {
    throw notYet(this.require(name).name, "adopted");
  }

  async discardImage(name: string): Promise<ImageReport> {
    throw notYet(this.require(name).name, "discarded");
  }

  async setPools(node: string, orders: readonly PoolOrder[]): Promise<NodeView> {
    const view = (): NodeView | undefined => this.nodes().find(({ name }) => name === node);
    const found = requireNode(view(), node, this.nodes());
    requirePools(found, orders);
    await this.#options.map.setPools(node, orders);
    return view() ?? found;
  }

  nodes(): readonly NodeView[] {
    const { map, catalog } = this.#options;
    return map.nodes().map(({ record, ageMs, drained }) => ({
      ...record,
      drained,
      ageMs: Math.round(ageMs),
      alive: ageMs <= limits.nodeSilentMs,
      volumes: catalog
        .list()
        .filter(({ id }) => map.placementOf(id)?.replicas.some(({ node }) => node === record.name))
        .map((volume) => volume.name),
    }));
  }

  replicas(volume: string | null): readonly ReplicaView[] {
    const records = volume === null ? this.#options.catalog.list() : [this.require(volume)];
    return records.flatMap((record) => this.replicasOf(record));
  }

  attachments(): readonly AttachmentView[] {
    return this.#options.catalog.list().flatMap(({ id, name }) => {
      const lease = this.#serving(id);
      return lease === null ? [] : [attachmentOf(name, lease)];
    });
  }

  async takeover(name: string): Promise<AttachmentView> {
    const { id } = this.require(name);
    const lease = this.#serving(id);
    if (lease === null || !(await this.#options.leases.revoke(`volume.${id}`))) {
      throw new VarveError("NotServedError", "Invalid", `no gateway serves volume ${name}`, {
        hint: "Any gateway takes it when a client connects there. Nothing was changed.",
        fields: { name },
      });
    }
    return attachmentOf(name, lease);
  }

  /** Where replicas may be placed now. */
  ground(): Parameters<typeof placeReplicas>[1] {
    const { map, catalog } = this.#options;
    const sizes = new Map(catalog.list().map(({ id, sizeBytes }) => [id, sizeBytes]));
    const nodes = map.nodes().map((node) => ({ ...node, reason: reasonAgainst(node) }));
    return {
      nodes: nodes.filter(({ reason }) => reason === null).map(({ record }) => record),
      unfit: new Map(nodes.flatMap(({ record, reason }) => (reason === null ? [] : [[record.name, reason]]))),
      placements: map.placements(),
      sizeOf: (id) => sizes.get(id) ?? 0,
    };
  }

  /** As they said last. */
  replicasOf({ id, name }: VolumeRecord): readonly ReplicaView[] {
    const { map, clock } = this.#options;
    const nowMs = clock.monotonicMs();
    return (map.placementOf(id)?.replicas ?? []).map(({ node, pool, leaving }) => {
      const heard = this.#reports.get(keyOf(id, node));
      const fresh = heard !== undefined && nowMs - heard.atMs <= limits.replicaSilentMs;
      return { volume: name, node, pool, leaving: leaving === true, report: fresh ? heard.report : null };
    });
  }

  #serving(id: string): LeaseRecord | null {
    const lease = this.#options.leases.view(`volume.${id}`);
    return lease !== null && lease.state === "held" ? lease : null;
  }

  /** The volume of that name. Throws UnknownVolumeError, VolumeArrivingError, VolumeUnfinishedError. */
  require(name: string): VolumeRecord {
    const record = this.#options.catalog.find(name);
    if (record !== null && record.state === "active") return record;
    const begun = this.#unfinished(name);
    if (begun !== null) throw stillUnfinished(begun);
    if (record?.state === "settling") throw volumeSettling(name);
    const names = this.list().map((view) => view.name);
    throw new VarveError(
      "UnknownVolumeError",
      "Invalid",
      `there is no volume named ${JSON.stringify(name)}`,
      {
        hint: names.length === 0 ? "There are no volumes yet." : `Volumes: ${names.join(", ")}.`,
        fields: { name },
      },
    );
  }

  /** Nobody may use it yet, or ever, where whoever made it died. */
  #unfinished(name: string): VolumeRecord | null {
    const record = this.#options.catalog.find(name);
    return record !== null && (record.state === "creating" || record.state === "arriving") ? record : null;
  }

  #view(record: VolumeRecord): VolumeView {
    const isReady = record.state === "active";
    const isGoing = record.state === "settling";
    const lease = this.#serving(record.id);
    const placement = this.#options.map.placementOf(record.id);
    const places = (placement?.replicas ?? []).map(({ node, pool }) => `${node}:${pool}`);
    return {
      id: record.id,
      name: record.name,
      description: isGoing ? "deleted" : lease === null ? "not in use" : `served by gateway ${lease.holder}`,
      sizeBytes: record.sizeBytes,
      durability: record.durability,
      reads: record.reads ?? "available",
      orders: record.orders ?? noOrders,
      createdAtMs: record.createdAtMs,
      condition: isGoing ? "deleting" : !isReady ? "busy" : lease === null ? "closed" : "serving",
      failure: null,
      attachedClients: 0,
      imagePath: places.join(", "),
      logPath: `NATS stream varve-log-${record.id}`,
      figures: null,
      ...(isReady || record.move === undefined ? {} : { arrivesFrom: record.move.volumeId }),
      past: clusterPastView(this.#options.past, record, this.replicasOf(record)),
    };
  }
}

function keyOf(volumeId: string, node: string): string {
  return `${volumeId}.${node}`;
}

function attachmentOf(volume: string, { holder, address, epoch }: LeaseRecord): AttachmentView {
  return { volume, gateway: holder, address, epoch };
}

function servedByNobody(name: string): VarveError {
  return new VarveError("ResizeWantsHolder", "Retry", `no gateway serves volume ${name} now`, {
    hint: "Connect a client to it, then resize: the gateway that serves it writes the new size. Nothing was changed.",
    fields: { name },
  });
}

function reasonAgainst({
  ageMs,
  drained,
}: {
  readonly ageMs: number;
  readonly drained: boolean;
}): string | null {
  if (ageMs > limits.nodeSilentMs) return `is not heard for ${Math.round(ageMs / 1000)} s`;
  return drained ? "is drained" : null;
}
