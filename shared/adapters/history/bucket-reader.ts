/*
 * Metadata objects of the bucket for all points of a process: each in memory once, fetched by one GET for all who want it at
 * the same time, within the memory of fetch-gate.ts. Made by histories.ts; log-parts.ts and base-reader.ts ask it.
 * What is checked when an object comes: bucket-objects.ts.
 */
import type { BaseContent, BasePage, BaseRef, IndexPageRef, SegmentRef } from "#shared/domain/archive.ts";
import type { IndexPage } from "#shared/formats/index-page.ts";
import type { SegmentIndex } from "#shared/formats/segment-index.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { BoundedCache } from "./bounded-cache.ts";
import { readBase, readBasePage, readIndexPage, readSegmentIndex } from "./bucket-objects.ts";
import { FetchGate } from "./fetch-gate.ts";
import { objectDamaged } from "./history-errors.ts";
import type { HistoryLimits } from "./history-limits.ts";

/** What a metadata object takes while it is fetched and opened; what it is kept for is counted exactly. */
const metadataFetchBytes = 1024 * 1024;
/** A key or chunk name in memory. */
const nameBytes = 112;

export class BucketReader {
  readonly store: ObjectStore;
  readonly limits: HistoryLimits;
  readonly gate: FetchGate;
  private readonly bases: BoundedCache<BaseContent>;
  private readonly pages: BoundedCache<BasePage>;
  private readonly indexes: BoundedCache<SegmentIndex | IndexPage>;

  constructor(store: ObjectStore, limits: HistoryLimits) {
    this.store = store;
    this.limits = limits;
    this.gate = new FetchGate(limits.fetchBytesMax, limits.fetchesMax);
    this.bases = new BoundedCache(limits.pageCacheBytes / 4);
    this.pages = new BoundedCache((limits.pageCacheBytes * 3) / 4);
    this.indexes = new BoundedCache(limits.indexCacheBytes);
  }

  base(volumeId: string, ref: BaseRef): Promise<BaseContent> {
    return this.bases.load(ref.key, () =>
      this.gate.run("places", metadataFetchBytes, async () => {
        const value = await readBase(this.store, volumeId, ref);
        return { value, bytes: value.pages.length * nameBytes };
      }),
    );
  }

  basePage(key: string, firstExtent: number): Promise<BasePage> {
    return this.pages.load(key, () =>
      this.gate.run("places", metadataFetchBytes, async () => {
        const value = await readBasePage(this.store, key, firstExtent);
        return { value, bytes: value.chunks.length * nameBytes };
      }),
    );
  }

  /** Where they are in memory. */
  knownBase(ref: BaseRef): BaseContent | undefined {
    return this.bases.get(ref.key);
  }

  knownPage(key: string): BasePage | undefined {
    return this.pages.get(key);
  }

  async indexPage(volumeId: string, ref: IndexPageRef): Promise<IndexPage> {
    const page = await this.indexes.load(ref.key, () =>
      this.gate.run("places", metadataFetchBytes, async () => {
        const value = await readIndexPage(this.store, volumeId, ref);
        const runs = value.segments.reduce(
          (sum, { extents, events }) => sum + extents.length + events.length,
          0,
        );
        return { value, bytes: value.segments.length * 600 + runs * 100 };
      }),
    );
    return page as IndexPage;
  }

  /** `line`: whose log it has to be. */
  async segmentIndex(volumeId: string, line: string | null, ref: SegmentRef): Promise<SegmentIndex> {
    const index = await this.indexes.load(ref.key, () =>
      this.gate.run("places", 2 * (ref.bytes - ref.footerStart) + metadataFetchBytes, async () => {
        const value = await readSegmentIndex(this.store, volumeId, ref);
        const bytes = value.entryCount * 25 + value.batchCount * 44 + value.frames.length * 150;
        return { value, bytes: bytes + value.events.length * 150 };
      }),
    );
    const found = index as SegmentIndex;
    if (line === null || found.line === line) return found;
    throw objectDamaged(this.store.place, ref.key, "fields", `it is of the line ${found.line}, not ${line}`);
  }

  statistics() {
    return {
      bases: this.bases.statistics(),
      pages: this.pages.statistics(),
      indexes: this.indexes.statistics(),
      fetches: this.gate.statistics(),
    };
  }

  clear(): void {
    this.bases.clear();
    this.pages.clear();
    this.indexes.clear();
  }
}
