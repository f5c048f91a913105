/*
 * What must still be in the bucket before log goes, and how to bring it back: segments from the hot log, index pages from memory, a
 * manifest by publishing another, a base by doing without it. Made by volume-archiver.ts for held-ledger.ts.
 */
import type { BaseRef, IndexPageRef, SegmentRef, VolumeManifest } from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { decodeIndexPage } from "#shared/formats/index-page.ts";
import { isBadObject } from "#shared/formats/sealed-object.ts";
import { readSegmentFooter } from "#shared/formats/segment-object.ts";
import type { ArchiveSubject } from "#shared/ports/archive.ts";
import type { ArchiveParts } from "./archive-parts.ts";
import { endsAs, type HeldObject } from "./held-ledger.ts";
import type { LogSealer, UploadedSegment } from "./log-sealer.ts";
import type { FoundManifest } from "./manifest-finder.ts";
import type { ManifestChange, StoredObject, StoredPage } from "./manifest-publisher.ts";

export interface HeldObjectsOptions {
  readonly parts: ArchiveParts;
  readonly subject: ArchiveSubject;
  readonly sealer: LogSealer;
  readonly publish: (change: ManifestChange) => Promise<VolumeManifest>;
  readonly present: () => VolumeManifest | null;
  /** What a base names is known to be there, or looked at for itself. */
  readonly isBaseJudgedAlone: (key: string) => boolean;
}

export class HeldObjects {
  private readonly options: HeldObjectsOptions;
  /** The newest manifest as it was stored. */
  private manifest: StoredObject | null = null;

  constructor(options: HeldObjectsOptions) {
    this.options = options;
  }

  /** A manifest was published, with these new segments and index pages. */
  ofManifest(
    stored: StoredObject,
    segments: readonly UploadedSegment[],
    pages: readonly StoredPage[],
  ): readonly HeldObject[] {
    this.manifest = stored;
    return [
      ...segments.map(({ ref, digest }) => this.segment(ref, digest)),
      ...pages.map((page) => this.page(page)),
      this.presentManifest(stored),
    ];
  }

  /** Its own objects, and those of other volumes' bases that it names, which may not be held yet themselves. */
  ofBase(
    base: BaseRef,
    stored: readonly StoredObject[],
    borrowedKeys: readonly string[],
  ): readonly HeldObject[] {
    const { store } = this.options.parts;
    const restore = (): Promise<readonly HeldObject[]> => this.withoutBase(base.key);
    return [
      ...stored.map((object) => ({ key: object.key, check: () => endsAs(store, object), restore })),
      ...borrowedKeys.map((key) => ({
        key,
        check: async () => ((await store.head(key))?.bytes ?? 0) > 0,
        restore,
      })),
    ];
  }

  /** What an earlier process archived and the log still has from its first entry on. Nobody knows any more when it was stored. */
  ofEarlier({ key, object, manifest }: FoundManifest, oldestLsn: number): readonly HeldObject[] {
    const stored = {
      key,
      bytes: object.length,
      digest: Uint8Array.from(object.subarray(object.length - 32)),
    };
    this.manifest = stored;
    return [
      ...manifest.pages
        .filter((page) => page.lastLsn >= oldestLsn)
        .map((page) => this.earlierPage(page, oldestLsn)),
      ...manifest.segments.filter((one) => one.firstLsn >= oldestLsn).map((one) => this.segment(one, null)),
      this.presentManifest(stored),
    ];
  }

  private segment(ref: SegmentRef, digest: Uint8Array | null): HeldObject {
    const { store } = this.options.parts;
    const { key, bytes } = ref;
    return {
      key,
      check: () => (digest === null ? this.hasFooter(ref) : endsAs(store, { key, bytes, digest })),
      restore: () => this.restoreSegment(ref),
    };
  }

  private async hasFooter(ref: SegmentRef): Promise<boolean> {
    const { key, footerStart, bytes } = ref;
    const length = bytes - footerStart;
    const tail = await this.options.parts.store.get(key, { start: footerStart, length: length + 1 });
    if (tail?.length !== length) return false;
    const index = readSegmentFooter(tail, bytes);
    return !isBadObject(index) && index.firstLsn === ref.firstLsn && index.lastLsn === ref.lastLsn;
  }

  /** The same bytes under the same name; another zstd makes others, which get another name. */
  private async restoreSegment(ref: SegmentRef): Promise<readonly HeldObject[]> {
    const { parts, sealer, publish, subject } = this.options;
    const same = await sealer.sealAgain(ref.firstLsn, ref.lastLsn, epochOf(ref.key));
    if (
      same.ref.key === ref.key &&
      same.ref.bytes === ref.bytes &&
      same.ref.footerStart === ref.footerStart
    ) {
      await parts.store.put(ref.key, same.object);
      return [this.segment(ref, same.object.slice(same.object.length - 32))];
    }
    const other = await sealer.sealAgain(ref.firstLsn, ref.lastLsn, subject.archiverEpoch);
    await parts.store.put(other.ref.key, other.object);
    await publish((manifest) => {
      const segments = manifest.segments.map((one) => (one.key === ref.key ? other.ref : one));
      if (!segments.includes(other.ref)) throw unrestorable(ref.key);
      return { ...manifest, segments };
    });
    return [this.segment(other.ref, other.object.slice(other.object.length - 32))];
  }

  private page(page: StoredPage): HeldObject {
    const { store } = this.options.parts;
    return {
      key: page.key,
      check: () => endsAs(store, page),
      restore: async () => {
        await store.put(page.key, page.object);
        return [this.page(page)];
      },
    };
  }

  /** With the segments that it names; a page itself can't be made again. */
  private earlierPage(ref: IndexPageRef, oldestLsn: number): HeldObject {
    const { store } = this.options.parts;
    let lost: HeldObject[] = [];
    return {
      key: ref.key,
      check: async () => {
        const object = await store.get(ref.key);
        const page = object === null ? null : decodeIndexPage(object);
        if (page === null || isBadObject(page)) throw unrestorable(ref.key);
        lost = [];
        for (const summary of page.segments) {
          if (summary.firstLsn < oldestLsn) continue;
          const segment = this.segment(summary, null);
          if (!(await segment.check())) lost.push(segment);
        }
        return lost.length === 0;
      },
      restore: async () => {
        const restored: HeldObject[] = [];
        for (const segment of lost) restored.push(...(await segment.restore()));
        return restored;
      },
    };
  }

  private presentManifest(stored: StoredObject): HeldObject {
    const { parts, publish } = this.options;
    return {
      key: stored.key,
      check: () => endsAs(parts.store, stored),
      restore: async () => {
        // Whatever is published now names all that the lost one did.
        await publish((manifest) => manifest);
        return this.manifest === null ? [] : [this.presentManifest(this.manifest)];
      },
    };
  }

  /** Without it and all that came after it: those may name what it lost. */
  async withoutBase(key: string): Promise<readonly HeldObject[]> {
    const isNamed = (base: BaseRef): boolean => base.key === key;
    if (this.options.present()?.bases.some(isNamed) ?? false) {
      await this.options.publish((manifest) => {
        const from = manifest.bases.findIndex(isNamed);
        if (from < 0) return manifest;
        // Later ones of this process may have taken over its names. All others are judged alone: log may have gone for them.
        const stays = (base: BaseRef, index: number): boolean =>
          index < from || (index > from && this.options.isBaseJudgedAlone(base.key));
        return { ...manifest, bases: manifest.bases.filter(stays) };
      });
    }
    return [];
  }
}

/** `….<line>.<epoch>.seg` */
function epochOf(key: string): number {
  return Number(key.split(".").at(-2));
}

function unrestorable(key: string): VarveError {
  return new VarveError(
    "ArchivedObjectLost",
    "Corrupt",
    `${key} is lost or damaged, and nothing here can make it again`,
    {
      hint: "Run `varve bucket check`. The log is kept from here on.",
      fields: { key },
    },
  );
}
