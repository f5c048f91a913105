/*
 * Mark: every key that a manifest leads to. The collector marks the present manifests of all volumes before it looks at what
 * else there is, and again those that changed before it deletes. Any error ends the mark. See docs/specs/retention.md.
 */
import { chunkKey, type VolumeManifest } from "#shared/domain/archive.ts";
import type { BucketReader } from "./bucket-reader.ts";
import { KeySet } from "./key-set.ts";

export class BucketMarker {
  readonly keys = new KeySet();
  private readonly reader: BucketReader;
  /** Objects that were followed in this mark: bases share pages, manifests share nearly everything. */
  private readonly followed = new Set<string>();

  constructor(reader: BucketReader) {
    this.reader = reader;
  }

  /** The manifest itself and all it names, directly or not. */
  async manifest(key: string, manifest: VolumeManifest): Promise<void> {
    this.keys.add(key);
    for (const segment of manifest.segments) this.keys.add(segment.key);
    for (const page of manifest.pages) {
      this.keys.add(page.key);
      if (this.isNew(page.key)) await this.indexPage(page.key);
    }
    for (const base of manifest.bases) {
      this.keys.add(base.key);
      if (this.isNew(base.key)) await this.base(base.key);
    }
  }

  /** A base and what it names, for bases that no manifest was found for. */
  async base(key: string): Promise<void> {
    this.keys.add(key);
    const { pages } = await this.reader.base(key);
    for (const page of pages) {
      if (page === null) continue;
      this.keys.add(page);
      if (this.isNew(page)) await this.basePage(page);
    }
  }

  private async indexPage(key: string): Promise<void> {
    const page = await this.reader.indexPage(key);
    for (const segment of page.segments) this.keys.add(segment.key);
  }

  private async basePage(key: string): Promise<void> {
    const page = await this.reader.basePage(key);
    for (const name of page.chunks) if (name !== null) this.keys.add(chunkKey(name));
  }

  private isNew(key: string): boolean {
    if (this.followed.has(key)) return false;
    this.followed.add(key);
    return true;
  }
}
