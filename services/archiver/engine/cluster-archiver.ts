/*
 * All volumes that an archiver process may archive: begins with those that the catalogue has, ends with those that go, and says how far
 * each is. Several processes share a cluster's volumes: each volume's lease says whose it is. Made by the archiver's cluster layer;
 * below it archived-volume.ts.
 */
import type { ArchiveRecord } from "#shared/domain/cluster.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { Timer } from "#shared/ports/clock.ts";
import type { VolumeHistory } from "#shared/ports/history.ts";
import type { KeptVolume } from "#shared/ports/kept-volume.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import { ArchivedVolume, type ArchivedVolumeSetting } from "./archived-volume.ts";

export interface ClusterArchiverOptions extends ArchivedVolumeSetting {
  readonly catalog: Pick<VolumeCatalog, "list" | "change">;
  /** Only this volume; null: all. */
  readonly only: string | null;
}

/**
 * Servers that restart or elect may say for some seconds that a stream is not there. So long it must be missing, at every look, before a
 * deleted volume counts as one without a log; where an archiver has met the log it is no volume that nobody ever opened.
 */
const missingMs = 2000;
const missingOnceMetMs = 30_000;

const isDeleted = ({ state }: VolumeRecord): boolean => state === "settling" || state === "deleting";

export class ClusterArchiver {
  readonly #options: ClusterArchiverOptions;
  readonly #volumes = new Map<string, ArchivedVolume>();
  readonly #burials = new Map<string, Promise<void>>();
  /** Since when the log of a volume that goes was not found. */
  readonly #missingSinceMs = new Map<string, number>();
  readonly #unfollow: () => void;
  #timer: Timer | null = null;
  #closing = false;

  constructor(options: ClusterArchiverOptions) {
    this.#options = options;
    this.#unfollow = options.past.onChange((volumeId) => this.#volumes.get(volumeId)?.factsChanged());
    this.#reportLater();
  }

  /** Begins and ends what the catalogue says now. */
  reconcile(): void {
    if (this.#closing) return;
    const { catalog, only } = this.#options;
    const records = new Map(
      catalog
        .list()
        .filter(({ name, state }) => state !== "creating" && (only === null || only === name))
        .map((record) => [record.id, record]),
    );
    for (const record of records.values()) {
      if (!this.#volumes.has(record.id) && this.#isWanted(record)) this.#begin(record);
      if (isDeleted(record)) this.#bury(record);
      else this.#volumes.get(record.id)?.lives();
    }
    for (const [id, volume] of this.#volumes) {
      if (records.has(id)) continue;
      this.#volumes.delete(id);
      this.#missingSinceMs.delete(id);
      void volume.close();
    }
  }

  /** Those that this process archives now. */
  archived(): readonly ArchivedVolume[] {
    return [...this.#volumes.values()].filter(({ tenure }) => tenure !== null);
  }

  /** For the keeper of the bucket. By the present record: one that arrived or goes is still archived as what it was when it began. */
  kept(historyOf: (record: VolumeRecord) => VolumeHistory): readonly KeptVolume[] {
    const { catalog, past } = this.#options;
    const records = new Map(catalog.list().map((record) => [record.id, record]));
    return this.archived().flatMap(({ record: { id }, tenure }) => {
      const record = records.get(id);
      if (record?.state !== "active" || past.historyOf(id) === null) return [];
      if (tenure === null || tenure.archive === null) return [];
      const { archive, image } = tenure;
      const { name } = record;
      return [{ volumeId: id, name, archive, image, history: historyOf(record), refill: async () => false }];
    });
  }

  /** What keeps volumes from being archived, by this process. */
  failures(): readonly string[] {
    return [...this.#volumes.values()].flatMap(({ record, failure }) =>
      failure === null ? [] : [`volume ${record.name}: ${failure.message}`],
    );
  }

  /** What every volume's archiver said last, whichever process that is. */
  reports(): readonly (ArchiveRecord & { readonly volume: string })[] {
    return this.#options.catalog.list().flatMap(({ id, name: volume }) => {
      const report = this.#options.past.archiveOf(id);
      return report === null ? [] : [{ volume, ...report }];
    });
  }

  async close(): Promise<void> {
    this.#closing = true;
    this.#timer?.cancel();
    this.#unfollow();
    await Promise.all([...this.#volumes.values()].map(async (volume) => volume.close()));
  }

  /** One that goes and was never archived needs no archiver to go. */
  #isWanted({ id, state }: VolumeRecord): boolean {
    return state === "active" || this.#options.past.historyOf(id) !== null;
  }

  #begin(record: VolumeRecord): void {
    const volume = new ArchivedVolume(record, this.#options);
    this.#volumes.set(record.id, volume);
    volume.start();
  }

  /**
   * The bucket keeps what there is of a deleted volume for a while, and says so. One that settles keeps its log and its replicas until the
   * bucket holds that; then it is deleting, its records may go, and with them its log.
   */
  #bury(record: VolumeRecord): void {
    const { past } = this.#options;
    if (this.#burials.has(record.id) || past.historyOf(record.id) === null) return;
    const burial = this.#tryToBury(record)
      .catch((cause: unknown) => {
        this.#missingSinceMs.delete(record.id);
        return toVarveError(cause, "bury");
      })
      .then((error) => {
        this.#burials.delete(record.id);
        if (error instanceof VarveError && error.kind !== "Retry") {
          this.#options.onNote(`warning: volume ${record.name}: ${error.message}`);
        }
      });
    this.#burials.set(record.id, burial);
  }

  async #tryToBury({ id, state }: VolumeRecord): Promise<void> {
    const { past, logOf } = this.#options;
    const volume = this.#volumes.get(id);
    if (volume === undefined) return;
    // Nothing was ever written, or its log went already: there is nothing to add to what the bucket has.
    if ((await logOf(id).end()) === null) {
      if (!this.#isMissingForLong(id)) return;
      await (state === "settling" ? this.#settled(id) : past.forget(id));
      return;
    }
    this.#missingSinceMs.delete(id);
    if (volume.tenure === null) return;
    const isHeld = await volume.bury().finally(() => {
      // Taken back while the bucket was told.
      if (!this.#options.catalog.list().some((one) => one.id === id && isDeleted(one))) volume.lives();
    });
    if (state === "settling") {
      if (isHeld) await this.#settled(id);
      return;
    }
    this.#volumes.delete(id);
    await volume.close();
    await past.forget(id);
  }

  /** Unless somebody took it back meanwhile: whoever changes the record first has decided. */
  async #settled(id: string): Promise<void> {
    await this.#options.catalog.change(id, (present) =>
      present.state === "settling" ? { ...present, state: "deleting" } : present,
    );
  }

  #isMissingForLong(id: string): boolean {
    const nowMs = this.#options.clock.monotonicMs();
    const sinceMs = this.#missingSinceMs.get(id) ?? nowMs;
    this.#missingSinceMs.set(id, sinceMs);
    return nowMs - sinceMs >= (this.#options.past.archiveOf(id) === null ? missingMs : missingOnceMetMs);
  }

  #reportLater(): void {
    this.#timer = this.#options.clock.after(limits.archiveReportMs, () => {
      for (const volume of this.#volumes.values()) volume.report();
      for (const record of this.#options.catalog.list()) {
        if (isDeleted(record)) this.#bury(record);
      }
      if (!this.#closing) this.#reportLater();
    });
  }
}
