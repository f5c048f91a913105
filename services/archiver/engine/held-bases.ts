/*
 * Which base of a volume is held: its objects, and the log up to its `e`. Extents are evicted only on the word of such a base
 * (docs/specs/residency.md). Bases of this process are in the ledger; one from
 * before is looked at once, when somebody asks.
 */
import type { BaseRef, VolumeManifest } from "#shared/domain/archive.ts";
import { chunkKey } from "#shared/domain/archive.ts";
import { limits } from "#shared/domain/limits.ts";
import type { ArchiveParts } from "./archive-parts.ts";
import { fetchBase, fetchBasePage } from "./base-writer.ts";
import type { BucketPatience } from "./bucket-patience.ts";
import type { HeldLedger } from "./held-ledger.ts";

export interface HeldBasesOptions {
  readonly parts: ArchiveParts;
  readonly patience: BucketPatience;
  readonly ledger: HeldLedger;
  readonly present: () => VolumeManifest | null;
}

export class HeldBases {
  private readonly options: HeldBasesOptions;
  private readonly earlierKeys = new Set<string>();
  private checking: string | null = null;

  constructor(options: HeldBasesOptions) {
    this.options = options;
  }

  /** The manifest from before this process. */
  earlier(manifest: VolumeManifest): void {
    for (const base of manifest.bases) this.earlierKeys.add(base.key);
  }

  newest(): BaseRef | null {
    const { ledger, present } = this.options;
    const bases = present()?.bases ?? [];
    const held = bases.findLast((base) => base.e <= ledger.heldLsn && ledger.heldBaseKeys.has(base.key));
    const earlier = bases.findLast((base) => this.earlierKeys.has(base.key));
    if (earlier !== undefined && earlier.s > (held?.s ?? -1)) this.check(earlier);
    return held ?? null;
  }

  private check(base: BaseRef): void {
    if (this.checking !== null) return;
    this.checking = base.key;
    this.isThere(base)
      .then((isThere) => {
        this.earlierKeys.delete(base.key);
        if (isThere) this.options.ledger.heldBaseKeys.add(base.key);
      })
      .catch(() => undefined) // asked again by the next caller
      .finally(() => {
        this.checking = null;
      });
  }

  private async isThere(base: BaseRef): Promise<boolean> {
    const { parts, patience } = this.options;
    const never = (): boolean => false;
    const { pages } = await fetchBase(parts.store, patience, base.key, never);
    for (const key of pages) {
      if (key === null) continue;
      const { chunks } = await fetchBasePage(parts.store, patience, key, never);
      const names = chunks.filter((name) => name !== null);
      let isWhole = true;
      const lane = async (): Promise<void> => {
        for (let name = names.shift(); name !== undefined && isWhole; name = names.shift()) {
          const chunk = chunkKey(name);
          const facts = await patience.run("check a chunk", () => parts.store.head(chunk));
          if (facts === null || facts.bytes === 0) isWhole = false;
        }
      };
      await Promise.all(Array.from({ length: limits.archiveRequestsAtOnceMax }, lane));
      if (!isWhole) return false;
    }
    return true;
  }
}
