/*
 * The volumes of a cluster as NBD exports of one gateway: every gateway offers all of them, and each is opened here when a client
 * asks for it and no other gateway serves it (cluster-volume.ts). Made by the cluster gateway's layer; the NBD server asks it.
 */
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { timeText } from "#shared/domain/wall-time.ts";
import type { BlockExport, ExportDirectory } from "#shared/ports/block-export.ts";
import type { PastRecords } from "#shared/ports/past-records.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import { ClusterVolume, type ClusterVolumeSetting } from "./cluster-volume.ts";
import { RelayExport } from "./relay-export.ts";
import { RelayLink } from "./relay-link.ts";

/** In front of the name when a gateway asks for its client. No volume's name has a colon. */
const relayPrefix = "relay:";

/** In front of the name when `varve volume move` fills a volume that nobody else may use yet. */
export const arrivingPrefix = "arriving:";

export interface ClusterExportsOptions extends ClusterVolumeSetting {
  readonly catalog: Pick<VolumeCatalog, "list" | "find" | "fetch">;
  /** Only this volume; null: all. */
  readonly only: string | null;
  /** Volumes at a point; null: there is none such here. */
  readonly points: { open(record: VolumeRecord, point: string): Promise<BlockExport | null> };
  readonly past: Pick<PastRecords, "historyOf">;
}

export class ClusterExports implements ExportDirectory {
  readonly #options: ClusterExportsOptions;
  readonly #volumes = new Map<string, ClusterVolume>();
  #closing = false;

  constructor(options: ClusterExportsOptions) {
    this.#options = options;
  }

  list(): readonly { readonly name: string; readonly description: string }[] {
    const { catalog, leases, past } = this.#options;
    let snapshotsLeft = limits.listedSnapshotsMax;
    return catalog
      .list()
      .filter((record) => this.#isOffered(record))
      .flatMap(({ name, id }) => {
        const lease = leases.view(`volume.${id}`);
        const held = lease !== null && lease.state === "held";
        const snapshots = past.historyOf(id)?.snapshots ?? [];
        // The newest are the ones that people look for.
        const shown = snapshotsLeft > 0 ? snapshots.slice(-snapshotsLeft) : [];
        snapshotsLeft -= shown.length;
        return [
          { name, description: held ? `served by gateway ${lease.holder}` : "not in use" },
          ...shown.map((snapshot) => ({
            name: `${name}@${snapshot.name}`,
            description: `snapshot of ${timeText(snapshot.wallTimeMs)}, read-only`,
          })),
        ];
      });
  }

  async open(exportName: string): Promise<BlockExport | null> {
    const at = exportName.indexOf("@");
    if (at > 0) return await this.#openPoint(exportName.slice(0, at), exportName.slice(at + 1));
    const relayed = exportName.startsWith(relayPrefix);
    const wanted = relayed ? exportName.slice(relayPrefix.length) : exportName;
    const arriving = wanted.startsWith(arrivingPrefix);
    const name = arriving ? wanted.slice(arrivingPrefix.length) : wanted;
    const record = this.#options.catalog.find(name);
    if (record === null || !this.#isOffered(record, arriving ? "arriving" : "active")) return null;
    if (this.#closing) throw new VarveError("GatewayClosing", "Retry", "this gateway is closing");
    if (record.durability !== "write") throw flushRefused(name);
    let volume = this.#volumes.get(record.id);
    if (volume === undefined) {
      const made = new ClusterVolume(record, this.#options, () => {
        if (this.#volumes.get(record.id) === made) this.#volumes.delete(record.id);
      });
      volume = made;
      this.#volumes.set(record.id, made);
    }
    try {
      return await volume.open();
    } catch (cause) {
      // Who relays already goes no further: two gateways that are mistaken about each other would never end.
      if (relayed || !(cause instanceof VarveError) || cause._tag !== "ServedElsewhere") throw cause;
      return await this.#relay(wanted, cause);
    }
  }

  async #openPoint(name: string, point: string): Promise<BlockExport | null> {
    const record = this.#options.catalog.find(name);
    if (record === null || !this.#isOffered(record)) return null;
    return await this.#options.points.open(record, point);
  }

  async #relay(name: string, { fields }: VarveError): Promise<BlockExport> {
    const [holder, address] = [String(fields["holder"]), String(fields["address"])];
    if (address === "") throw beingChanged(name, holder);
    const { clock } = this.#options;
    const target = { address, exportName: `${relayPrefix}${name}` };
    const link = await RelayLink.open(target, clock, () => this.#options.disconnect(name));
    return new RelayExport(name, holder, link);
  }

  /** What is served here now, by volume id. */
  served(): ReadonlyMap<string, NonNullable<ReturnType<ClusterVolume["status"]>>> {
    return new Map(
      [...this.#volumes].flatMap(([id, volume]) => {
        const status = volume.status();
        return status === null ? [] : [[id, status] as const];
      }),
    );
  }

  /** Closes every session and releases every lease. */
  async close(): Promise<void> {
    this.#closing = true;
    await Promise.all([...this.#volumes.values()].map(async (volume) => volume.close()));
  }

  #isOffered({ name, state }: VolumeRecord, wanted: "active" | "arriving" = "active"): boolean {
    const { only } = this.#options;
    return state === wanted && (only === null || only === name);
  }
}

/** Who holds the lease without an address serves nobody: a rollback, a deletion. */
function beingChanged(name: string, holder: string): VarveError {
  return new VarveError("VolumeBusyError", "Retry", `volume ${name} is being changed: ${holder}`, {
    hint: "Connect again in a moment.",
    fields: { name, holder },
  });
}

function flushRefused(name: string): VarveError {
  return new VarveError(
    "FlushVolumeRefused",
    "Invalid",
    `volume ${name} has durability flush, which gateways of a cluster don't serve`,
    {
      hint: `A client that reconnects to another gateway could not know of lost answers: varve volume set ${name} --durability write.`,
      fields: { name },
    },
  );
}
