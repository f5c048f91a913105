/*
 * The disks of volumes as far as a bucket has them (port ArchivedImages): the present manifest says how far, histories.ts opens the point.
 * One per storage node, so that memory and requests of all fills have one limit. Opened by services/storage/node-layer.ts.
 */
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { ArchivedImages, ArchivedPlace } from "#shared/ports/archived-images.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { PointSource } from "#shared/ports/history.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { BucketSubject, Histories } from "./histories.ts";
import { volumeNotInBucket } from "./history-errors.ts";
import { latestManifest } from "./latest-manifest.ts";

export interface BucketImagesOptions {
  /** For messages. */
  readonly place: string;
  readonly clock: Clock;
  /** Called when the bucket is asked, until it has succeeded: a node runs without its bucket. */
  readonly openStore: () => Promise<ObjectStore>;
}

interface OpenBucket {
  readonly store: ObjectStore;
  readonly histories: Histories;
}

export class BucketImages implements ArchivedImages {
  readonly #options: BucketImagesOptions;
  readonly #waiting: (() => void)[] = [];
  #bucket: Promise<OpenBucket> | null = null;
  #isClosed = false;
  #open = 0;

  constructor(options: BucketImagesOptions) {
    this.#options = options;
  }

  get place(): string {
    return this.#options.place;
  }

  /** Opens the bucket without asking it anything; rejects where its settings are wrong. Not needed before the others. */
  async ready(): Promise<OpenBucket> {
    const { openStore, clock, place } = this.#options;
    if (this.#isClosed) throw new VarveError("BucketClosed", "Retry", `${place} is not open any more`);
    this.#bucket ??= openStore().then((store) => ({ store, histories: new Histories({ store, clock }) }));
    try {
      return await this.#bucket;
    } catch (cause) {
      this.#bucket = null;
      throw cause;
    }
  }

  async newest(volumeId: string): Promise<ArchivedPlace | null> {
    const { store } = await this.ready();
    const found = await latestManifest(store, volumeId);
    if (found === null || found.manifest.archivedLsn === 0) return null;
    const { line, archivedEpoch: epoch, archivedLsn: lsn, archivedChecksum, pins } = found.manifest;
    return { line, epoch, lsn, checksum: BigInt(`0x${archivedChecksum}`), pins };
  }

  async open(volumeId: string, lsn: number): Promise<PointSource> {
    if (this.#open >= limits.bucketFill.fillsMax) {
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
      });
    } else this.#open += 1;
    try {
      return this.#counted(await this.point(volumeId, lsn));
    } catch (cause) {
      this.#ended();
      throw cause;
    }
  }

  /** Not through the histories' own cache: a manifest that is some seconds old may not have this LSN yet. */
  async point(volumeId: string, lsn: number): Promise<PointSource> {
    const { store, histories } = await this.ready();
    const load = async () => {
      const found = await latestManifest(store, volumeId);
      if (found === null) throw volumeNotInBucket(store.place, volumeId);
      return found.manifest;
    };
    return await histories.of(new BucketSubject(await load(), load)).open(lsn);
  }

  /** Requests under way end at once. */
  async close(): Promise<void> {
    this.#isClosed = true;
    const bucket = await this.#bucket?.catch(() => null);
    await bucket?.store.close();
    await bucket?.histories.close();
  }

  #counted(source: PointSource): PointSource {
    let isOpen = true;
    return {
      volumeId: source.volumeId,
      lsn: source.lsn,
      sizeBytes: source.sizeBytes,
      read: (slab, start, length, offset) => source.read(slab, start, length, offset),
      allocation: (offset, length, runsMax) => source.allocation(offset, length, runsMax),
      extents: () => source.extents(),
      close: async () => {
        if (!isOpen) return;
        isOpen = false;
        await source.close();
        this.#ended();
      },
    };
  }

  /** The one that has waited longest has the turn. */
  #ended(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#open -= 1;
    else next();
  }
}
