/*
 * `varve bucket check`: follows every name from the present manifests and compares what stands there with what was said of it.
 * Reads only. What is wrong becomes a finding and the check goes on; a store that can't be asked ends it. Called by
 * bucket-keeper.ts and, without a server, by services/cli/commands/bucket.ts.
 */
import {
  type BaseRef,
  chunkKey,
  extentsPerBasePage,
  manifestKey,
  type SegmentRef,
  type VolumeManifest,
} from "#shared/domain/archive.ts";
import { bucketKeyOf } from "#shared/domain/bucket-keys.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { openChunk } from "#shared/formats/chunk-object.ts";
import { indexPageRefOf } from "#shared/formats/index-page.ts";
import { isBadObject } from "#shared/formats/sealed-object.ts";
import { openSegment } from "#shared/formats/segment-object.ts";
import type { BucketCheckReport, BucketFinding } from "#shared/ports/bucket-administration.ts";
import type { BucketReader, ListedVolume } from "./bucket-reader.ts";
import { KeySet } from "./key-set.ts";

export interface CheckOptions {
  /** Only whether each object is there, with its size where a manifest says it. */
  readonly quick: boolean;
  /** Called with each name that is followed: objects, their bytes, and the bytes of all that were listed. */
  onProgress?(objects: number, bytes: number, totalBytes: number): void;
  /** True: the process ends; the check fails. */
  isStopped?(): boolean;
  /** Awaited after each object that was hashed: on a server, others get their turn. */
  breathe?(): Promise<void>;
}

export async function checkBucket(reader: BucketReader, options: CheckOptions): Promise<BucketCheckReport> {
  return await new BucketCheck(reader, options).run();
}

class BucketCheck {
  private readonly reader: BucketReader;
  private readonly options: CheckOptions;
  private readonly findings: BucketFinding[] = [];
  private problems = 0;
  /** Keys of the listing, and keys with their size. */
  private readonly there = new KeySet();
  private readonly sized = new KeySet();
  private readonly named = new KeySet();
  private namedAndThere = 0;
  private readBytes = 0;
  private objects = 0;
  private bytes = 0;

  constructor(reader: BucketReader, options: CheckOptions) {
    this.reader = reader;
    this.options = options;
  }

  async run(): Promise<BucketCheckReport> {
    // Manifests first: whatever they name was there before them, so the listing behind shows it. Read now: a check takes hours, and
    // the collector takes a manifest away an hour after it was followed by another.
    const volumes = await this.reader.volumes();
    const manifests: VolumeManifest[] = [];
    for (const volume of volumes) {
      const manifest = await this.presentManifest(volume);
      if (manifest !== null) manifests.push(manifest);
    }
    const collectable = await this.list();
    for (const manifest of manifests) {
      const key = manifestKey(manifest);
      if (this.there.has(key)) this.present(key);
      await this.manifest(manifest);
    }
    return {
      place: this.reader.store.place,
      volumes: volumes.length,
      objects: this.objects,
      bytes: this.bytes,
      unnamedObjects: Math.max(0, collectable - this.namedAndThere),
      findings: this.findings,
      problems: this.problems,
    };
  }

  private async presentManifest({
    volumeId,
    manifests,
    otherObjects,
  }: ListedVolume): Promise<VolumeManifest | null> {
    let key = manifests.at(-1)?.key;
    if (key === undefined) {
      if (otherObjects > 0) this.find(`volumes/${volumeId}/`, "holds objects, but no manifest");
      return null;
    }
    for (let tries = 1; ; tries += 1) {
      const asked: string = key;
      try {
        return await this.reader.manifest(asked);
      } catch (cause) {
        const mayBeCollected = isMissing(cause) && tries < limits.manifestTriesMax;
        const now = mayBeCollected ? await this.reader.presentKey(volumeId) : asked;
        // Collected since it was listed: another one is present, or the volume is gone.
        if (now === null) return null;
        if (now === asked) return await this.attempt(asked, () => Promise.reject(cause as Error));
        key = now;
      }
    }
  }

  /** Returns how many of the listed objects should be named by something. */
  private async list(): Promise<number> {
    let collectable = 0;
    for (const prefix of ["volumes/", "chunks/"]) {
      for await (const { key, bytes } of this.reader.store.list(prefix)) {
        const { kind } = bucketKeyOf(key);
        this.objects += 1;
        this.bytes += bytes;
        if (kind === "unknown") this.find(key, "has a name that no Varve writes");
        if (kind === "unknown" || kind === "line") continue;
        collectable += 1;
        this.there.add(key);
        this.sized.add(`${key} ${bytes}`);
      }
    }
    return collectable;
  }

  private async manifest(manifest: VolumeManifest): Promise<void> {
    const chain = new SegmentChain((key, problem) => this.find(key, problem));
    for (const page of manifest.pages) {
      if (!this.present(page.key)) continue;
      const content = await this.attempt(page.key, () => this.reader.indexPage(page.key));
      if (content === null) continue;
      const said = JSON.stringify(page);
      if (
        content.volumeId !== manifest.volumeId ||
        JSON.stringify(indexPageRefOf(content, page.key)) !== said
      ) {
        this.find(page.key, "does not hold what the manifest says of it");
      }
      for (const segment of content.segments) await this.segment(manifest, segment, chain);
    }
    for (const segment of manifest.segments) await this.segment(manifest, segment, chain);
    if (chain.lastLsn === manifest.archivedLsn && chain.line === manifest.line) {
      const checksum = chain.lastChecksum.toString(16).padStart(16, "0");
      if (checksum !== manifest.archivedChecksum) {
        this.find(chain.lastKey, "does not end with the checksum that the manifest names");
      }
    }
    for (const base of manifest.bases) await this.base(manifest, base);
  }

  private async segment(manifest: VolumeManifest, ref: SegmentRef, chain: SegmentChain): Promise<void> {
    if (!this.present(ref.key)) return;
    if (!this.sized.has(`${ref.key} ${ref.bytes}`)) this.find(ref.key, `is not ${ref.bytes} bytes long`);
    if (this.options.quick) return;
    const object = await this.attempt(ref.key, () => this.reader.object(ref.key));
    if (object === null) return;
    this.readBytes += object.length;
    const opened = openSegment(object);
    await this.options.breathe?.();
    if (isBadObject(opened)) {
      this.find(ref.key, `is damaged: ${opened.detail}`);
      return;
    }
    const { volumeId, firstLsn, lastLsn, recordBytes } = opened.index;
    const isSame =
      volumeId === manifest.volumeId &&
      firstLsn === ref.firstLsn &&
      lastLsn === ref.lastLsn &&
      recordBytes === ref.recordBytes;
    if (!isSame) this.find(ref.key, "does not hold what the manifest says of it");
    chain.follow(ref.key, opened.index);
  }

  private async base(manifest: VolumeManifest, ref: BaseRef): Promise<void> {
    const isKnown = this.named.has(ref.key);
    if (!this.present(ref.key) || isKnown) return;
    const base = await this.attempt(ref.key, () => this.reader.base(ref.key));
    if (base === null) return;
    const isSame =
      base.volumeId === manifest.volumeId &&
      base.s === ref.s &&
      base.e === ref.e &&
      base.sizeBytes === ref.sizeBytes;
    if (!isSame) this.find(ref.key, "does not hold what the manifest says of it");
    for (const [number, page] of base.pages.entries()) {
      if (page !== null) await this.basePage(page, number);
    }
  }

  private async basePage(key: string, number: number): Promise<void> {
    const isKnown = this.named.has(key);
    if (!this.present(key) || isKnown) return;
    const page = await this.attempt(key, () => this.reader.basePage(key));
    if (page === null) return;
    if (page.firstExtent !== number * extentsPerBasePage) this.find(key, `is not page ${number}`);
    const waiting = page.chunks.filter((name) => name !== null);
    const lane = async (): Promise<void> => {
      for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) await this.chunk(name);
    };
    await Promise.all(Array.from({ length: limits.bucketReadsMax }, lane));
  }

  private async chunk(name: string): Promise<void> {
    const key = chunkKey(name);
    const isKnown = this.named.has(key);
    if (!this.present(key) || isKnown || this.options.quick) return;
    const object = await this.attempt(key, () => this.reader.object(key));
    if (object === null) return;
    this.readBytes += object.length;
    const opened = openChunk(object);
    await this.options.breathe?.();
    if (isBadObject(opened)) this.find(key, `is damaged: ${opened.detail}`);
    else if (!name.startsWith(`${opened.hash}.`)) this.find(key, "holds another chunk's content");
  }

  /** Marks the key as named, and says whether it was listed. */
  private present(key: string): boolean {
    const isThere = this.there.has(key);
    if (isThere && !this.named.has(key)) this.namedAndThere += 1;
    this.named.add(key);
    if (this.options.isStopped?.() === true) throw stopped();
    this.options.onProgress?.(this.named.size, this.readBytes, this.bytes);
    if (isThere) return true;
    this.find(key, "is named, but not in the bucket");
    return false;
  }

  /** Null with a finding where the object is not what it should be. */
  private async attempt<T>(key: string, work: () => Promise<T>): Promise<T | null> {
    try {
      return await work();
    } catch (cause) {
      const tells =
        cause instanceof VarveError &&
        (cause._tag.startsWith("BucketObject") || cause._tag === "BucketFormatError");
      if (!tells) throw cause;
      this.find(
        key,
        cause.message.startsWith(`${key} `) ? cause.message.slice(key.length + 1) : cause.message,
      );
      return null;
    }
  }

  private find(key: string, problem: string): void {
    this.problems += 1;
    if (this.findings.length < limits.bucketFindingsMax) this.findings.push({ key, problem });
  }
}

function isMissing(cause: unknown): boolean {
  return cause instanceof VarveError && cause._tag === "BucketObjectMissingError";
}

function stopped(): VarveError {
  return new VarveError("StoppedError", "Retry", "the check was stopped: the process ends", {
    hint: "Run it again.",
  });
}

/** Each segment goes on where the one before ended, in LSN and in the chain of record checksums. */
class SegmentChain {
  line = "";
  lastLsn = 0;
  lastChecksum = 0n;
  lastKey = "";
  private readonly find: (key: string, problem: string) => void;

  constructor(find: (key: string, problem: string) => void) {
    this.find = find;
  }

  follow(
    key: string,
    segment: {
      readonly line: string;
      readonly firstLsn: number;
      readonly lastLsn: number;
      readonly previousChecksum: bigint;
      readonly lastChecksum: bigint;
    },
  ): void {
    const goesOn = segment.firstLsn === this.lastLsn + 1 && segment.line === this.line;
    if (goesOn && segment.previousChecksum !== this.lastChecksum) {
      this.find(key, `does not continue the log of ${this.lastKey}`);
    }
    this.line = segment.line;
    this.lastLsn = segment.lastLsn;
    this.lastChecksum = segment.lastChecksum;
    this.lastKey = key;
  }
}
