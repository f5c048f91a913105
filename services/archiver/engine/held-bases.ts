/*
 * Which base of a volume is held: its objects, and the log up to its `e`. Extents are evicted only on the word of such a base
 * (docs/specs/residency.md). Bases of this process are in the ledger with what they stored. Those from before are looked at object by
 * object, once per open: nobody knows whether an earlier process lived long enough to do it.
 */
import { type BaseRef, chunkKey, type VolumeManifest } from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { ArchiveParts } from "./archive-parts.ts";
import { fetchBase, fetchBasePage } from "./base-writer.ts";
import type { BucketPatience } from "./bucket-patience.ts";
import type { HeldLedger, HeldObject } from "./held-ledger.ts";

export interface HeldBasesOptions {
  readonly parts: ArchiveParts;
  readonly patience: BucketPatience;
  readonly ledger: HeldLedger;
  readonly settleMs: number;
  readonly present: () => VolumeManifest | null;
  /** The manifest without the base and those that may have taken over its names. */
  readonly withoutBase: (key: string) => Promise<readonly HeldObject[]>;
}

export class HeldBases {
  private readonly options: HeldBasesOptions;
  private readonly earlierKeys = new Set<string>();

  constructor(options: HeldBasesOptions) {
    this.options = options;
  }

  newest(): BaseRef | null {
    const { ledger, present } = this.options;
    const isHeld = (base: BaseRef): boolean => base.e <= ledger.heldLsn && ledger.heldBaseKeys.has(base.key);
    return present()?.bases.findLast(isHeld) ?? null;
  }

  /** Every name of it is looked at, whatever becomes of the bases before it. */
  isEarlier(key: string): boolean {
    return this.earlierKeys.has(key);
  }

  /** Bases that an earlier process published. They share most of their pages, and pages most of their chunks. */
  earlier(manifest: VolumeManifest): void {
    const seen = new Set<string>();
    const { ledger, settleMs, withoutBase } = this.options;
    for (const { key } of manifest.bases) {
      this.earlierKeys.add(key);
      if (settleMs === 0) {
        // Where a PUT survives a power cut, what was published is there.
        ledger.heldBaseKeys.add(key);
        continue;
      }
      const object: HeldObject = {
        key,
        check: () => this.isWhole(key, seen),
        restore: () => withoutBase(key),
      };
      ledger.add(0, [object], key);
    }
  }

  private async isWhole(key: string, seen: Set<string>): Promise<boolean> {
    const { parts, patience } = this.options;
    const never = (): boolean => false;
    try {
      const { pages } = await fetchBase(parts.store, patience, key, never);
      for (const page of pages) {
        if (page === null || seen.has(page)) continue;
        const { chunks } = await fetchBasePage(parts.store, patience, page, never);
        const names = chunks.filter((name) => name !== null && !seen.has(name)) as string[];
        if (!(await this.areThere(names))) return false;
        for (const name of names) seen.add(name);
        seen.add(page);
      }
      return true;
    } catch (cause) {
      if (cause instanceof VarveError && cause.kind === "Corrupt") return false;
      throw cause;
    }
  }

  private async areThere(names: readonly string[]): Promise<boolean> {
    const { parts, patience } = this.options;
    let areThere = true;
    const waiting = [...names];
    const lane = async (): Promise<void> => {
      for (let name = waiting.shift(); name !== undefined && areThere; name = waiting.shift()) {
        const key = chunkKey(name);
        const facts = await patience.run("check a chunk", () => parts.store.head(key));
        // A file system that lost power may keep a name and no bytes.
        if (facts === null || facts.bytes === 0) areThere = false;
      }
    };
    await Promise.all(Array.from({ length: limits.archiveRequestsAtOnceMax }, lane));
    return areThere;
  }
}
