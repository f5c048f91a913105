/*
 * The base beneath a point's map: which chunk an extent's bytes are in. Root and pages are fetched when a read needs them and
 * shared by all points of the base (bucket-reader.ts). Asked by point-source.ts.
 */
import { type BaseContent, type BaseRef, extentsPerBasePage } from "#shared/domain/archive.ts";
import { limits } from "#shared/domain/limits.ts";
import type { BucketReader } from "./bucket-reader.ts";
import { objectDamaged } from "./history-errors.ts";

export class BaseReader {
  private readonly reader: BucketReader;
  private readonly volumeId: string;
  private readonly ref: BaseRef;

  constructor(reader: BucketReader, volumeId: string, ref: BaseRef) {
    this.reader = reader;
    this.volumeId = volumeId;
    this.ref = ref;
  }

  /** Extents beyond it are zero. */
  get extentCount(): number {
    return Math.ceil(this.ref.sizeBytes / limits.extentBytes);
  }

  /** The chunk's name; null where the extent is zero. */
  async chunkOf(extent: number): Promise<string | null> {
    const page = Math.floor(extent / extentsPerBasePage);
    const chunks = await this.chunksOf(page);
    return chunks === null ? null : this.chunkIn(chunks, page, extent);
  }

  /** The page's chunks; null where all of it is zero. */
  async chunksOf(page: number): Promise<readonly (string | null)[] | null> {
    if (page * extentsPerBasePage >= this.extentCount) return null;
    const root = await this.reader.base(this.volumeId, this.ref);
    const key = root.pages[page] ?? null;
    if (key === null) return null;
    return (await this.reader.basePage(key, page * extentsPerBasePage)).chunks;
  }

  /** How many extents from this one on are known to be zero, without asking the bucket; 0: it may hold something. */
  knownZeroes(extent: number): number {
    if (extent >= this.extentCount) return Number.POSITIVE_INFINITY;
    const root: BaseContent | undefined = this.reader.knownBase(this.ref);
    if (root === undefined) return 0;
    const page = Math.floor(extent / extentsPerBasePage);
    const key = root.pages[page] ?? null;
    if (key === null) return (page + 1) * extentsPerBasePage - extent;
    return this.reader.knownPage(key)?.chunks[extent - page * extentsPerBasePage] === null ? 1 : 0;
  }

  private chunkIn(chunks: readonly (string | null)[], page: number, extent: number): string | null {
    const chunk = chunks[extent - page * extentsPerBasePage];
    if (chunk !== undefined) return chunk;
    throw objectDamaged(
      this.reader.store.place,
      this.ref.key,
      "fields",
      `page ${page} has no extent ${extent}`,
    );
  }
}
