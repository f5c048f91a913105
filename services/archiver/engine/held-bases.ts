/*
 * Which base of a volume is held: its objects, and the log up to its `e`. Extents are evicted only on the word of such a base
 * (docs/specs/residency.md). Bases of this process are in the ledger with what they stored; here are the questions about those from
 * before, whose objects the bucket may still have lost: they are counted one by one, unless the bucket itself says that they are old.
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
  /** The manifest without the base and all that came after it. */
  readonly withoutBase: (key: string) => Promise<readonly HeldObject[]>;
}

export class HeldBases {
  private readonly options: HeldBasesOptions;

  constructor(options: HeldBasesOptions) {
    this.options = options;
  }

  newest(): BaseRef | null {
    const { ledger, present } = this.options;
    const isHeld = (base: BaseRef): boolean => base.e <= ledger.heldLsn && ledger.heldBaseKeys.has(base.key);
    return present()?.bases.findLast(isHeld) ?? null;
  }

  /** Bases that an earlier process published, in a manifest with that key. */
  earlier(manifest: VolumeManifest, manifestKey: string): void {
    const { ledger, settleMs, withoutBase } = this.options;
    for (const { key } of manifest.bases) {
      if (settleMs === 0) {
        // Where a PUT survives a power cut, what was published is there.
        ledger.heldBaseKeys.add(key);
        continue;
      }
      const object: HeldObject = {
        key,
        check: async () => (await this.isOld(key, manifestKey)) || (await this.isWhole(key)),
        restore: () => withoutBase(key),
      };
      ledger.add(0, [object], key);
    }
  }

  /** By the bucket's own clock: long before the manifest that still names it, so somebody looked at it in between. */
  private async isOld(baseKey: string, manifestKey: string): Promise<boolean> {
    const { store } = this.options.parts;
    const [base, manifest] = [await store.head(baseKey), await store.head(manifestKey)];
    if (base === null || manifest === null) return false;
    return manifest.modifiedMs - base.modifiedMs > oldSettleTimes * this.options.settleMs;
  }

  private async isWhole(key: string): Promise<boolean> {
    const { parts, patience } = this.options;
    const never = (): boolean => false;
    try {
      const { pages } = await fetchBase(parts.store, patience, key, never);
      for (const page of pages) {
        if (page === null) continue;
        const { chunks } = await fetchBasePage(parts.store, patience, page, never);
        if (!(await this.areThere(chunks.filter((name) => name !== null)))) return false;
      }
      return true;
    } catch (cause) {
      if (cause instanceof VarveError && cause.kind === "Corrupt") return false;
      throw cause;
    }
  }

  private async areThere(names: string[]): Promise<boolean> {
    const { parts, patience } = this.options;
    let areThere = true;
    const lane = async (): Promise<void> => {
      for (let name = names.shift(); name !== undefined && areThere; name = names.shift()) {
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

/** Settle times between a base and a manifest after which it was certainly looked at. */
const oldSettleTimes = 3;
