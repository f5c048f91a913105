/*
 * Sees every change of the simulated bucket as it happens, through all faults, and holds Varve to its rules: no object is ever
 * replaced by another, a manifest appears only when everything that it leads to is there and intact, nothing that a present
 * manifest leads to is ever deleted. Also says what the bucket holds for certain. Made by past-world.ts.
 */
import type { SimulatedBucket } from "#shared/adapters/object-store/simulated-bucket.ts";
import { chunkKey, type SegmentRef, type VolumeManifest } from "#shared/domain/archive.ts";
import { bucketKeyOf } from "#shared/domain/bucket-keys.ts";
import { decodeBase, decodeBasePage } from "#shared/formats/base-object.ts";
import { openChunk } from "#shared/formats/chunk-object.ts";
import { decodeIndexPage } from "#shared/formats/index-page.ts";
import { decodeManifest } from "#shared/formats/manifest-object.ts";
import { isBadObject } from "#shared/formats/sealed-object.ts";
import { openSegment } from "#shared/formats/segment-object.ts";
import type { Clock } from "#shared/ports/clock.ts";

interface PresentManifest {
  readonly key: string;
  readonly manifest: VolumeManifest;
  /** Everything that it leads to. */
  readonly names: ReadonlySet<string>;
}

export class BucketWatch {
  /** By volume id: the greatest manifest that is in the bucket. */
  readonly present = new Map<string, PresentManifest>();
  /** Objects that a power loss of the bucket took; whoever needs them must store them again. */
  readonly lost = new Set<string>();
  /** The same, also of those that came back. */
  private readonly everLost = new Set<string>();
  /** Damaged or taken on purpose, for a while. */
  readonly injured = new Set<string>();
  /** Manifests that were seen, for the report. */
  manifests = 0;
  deletions = 0;
  private readonly bucket: SimulatedBucket;
  private readonly clock: Clock;
  private readonly settleMs: number;
  private readonly fail: (what: string) => void;
  private readonly storedAtMs = new Map<string, number>();
  /** Keys that were opened and found right, with what they name. Objects never change. */
  private readonly checked = new Map<string, readonly string[]>();

  constructor(bucket: SimulatedBucket, clock: Clock, settleMs: number, fail: (what: string) => void) {
    this.bucket = bucket;
    this.clock = clock;
    this.settleMs = settleMs;
    this.fail = fail;
    const store = bucket.store.bind(bucket);
    bucket.store = (key, content, onlyNew) => {
      const before = bucket.content(key);
      const answer = store(key, content, onlyNew);
      if (answer === "stored") this.stored(key, content, before);
      return answer;
    };
    const remove = bucket.delete.bind(bucket);
    bucket.delete = (key) => {
      remove(key);
      this.deleted(key);
    };
  }

  /** The bucket's machine loses power. */
  powerLoss(): void {
    const before = new Set(this.bucket.keys());
    this.bucket.powerLoss();
    for (const key of this.bucket.keys()) before.delete(key);
    for (const key of before) {
      this.lost.add(key);
      this.everLost.add(key);
    }
    this.findPresent();
  }

  /** Everything that present manifests lead to is there and intact. */
  checkAll(when: string): void {
    for (const { manifest, key } of this.present.values()) this.judge(key, manifest, when);
  }

  /** All entries of a volume up to `lsn` are in segments that are there, intact, and past the settle time. */
  whyNotHeld(volumeId: string, lsn: number): string | null {
    const found = this.present.get(volumeId);
    if (found === undefined) return "there is no manifest";
    const { manifest } = found;
    if (manifest.archivedLsn < lsn)
      return `the present manifest archives up to LSN ${manifest.archivedLsn} only`;
    for (const { key } of manifest.pages) {
      if (this.bucket.facts(key) === null) return `${key} is not there`;
    }
    let next = manifest.retainedFromLsn + 1;
    for (const segment of this.segmentsOf(manifest)) {
      if (segment.firstLsn > lsn) break;
      if (segment.lastLsn < next) continue;
      if (segment.firstLsn > next) return `no segment has LSN ${next}`;
      if (this.bucket.facts(segment.key) === null) return `${segment.key} is not there`;
      const ageMs = this.clock.monotonicMs() - (this.storedAtMs.get(segment.key) ?? 0);
      if (ageMs < this.settleMs) return `${segment.key} was stored ${Math.round(ageMs)} ms ago`;
      next = segment.lastLsn + 1;
    }
    return next > lsn ? null : `no segment has LSN ${next}`;
  }

  /** Nothing that was stored is missing, but what was deleted. */
  get nothingLost(): boolean {
    return this.everLost.size === 0 && this.injured.size === 0;
  }

  /** Speaks of an object that a power loss of the bucket took. */
  isOfLost(cause: unknown): boolean {
    for (let error = cause; error instanceof Error; error = error.cause) {
      const { message } = error;
      if ([...this.everLost].some((key) => message.includes(key))) return true;
    }
    return false;
  }

  /** Keys that some present manifest leads to; for damage. */
  neededKeys(): readonly string[] {
    return [...new Set([...this.present.values()].flatMap(({ names }) => [...names]))].sort();
  }

  private segmentsOf(manifest: VolumeManifest): readonly SegmentRef[] {
    const paged = manifest.pages.flatMap((page) => {
      const content = this.bucket.content(page.key);
      const opened = content === null ? null : decodeIndexPage(content);
      return opened === null || isBadObject(opened) ? [] : opened.segments;
    });
    return [...paged, ...manifest.segments];
  }

  private stored(key: string, content: Buffer, before: Buffer | null): void {
    this.lost.delete(key);
    if (before === null) this.storedAtMs.set(key, this.clock.monotonicMs());
    const { kind } = bucketKeyOf(key);
    const mayChange = kind === "probe" || kind === "collector";
    if (kind === "unknown") this.fail(`an object of no known kind was stored: ${key}`);
    if (before !== null && !mayChange && !this.injured.has(key) && !before.equals(content)) {
      this.fail(`${key} was replaced by another object`);
    }
    if (kind !== "manifest") return;
    this.manifests += 1;
    this.findPresent(bucketKeyOf(key).volumeId);
    for (const found of this.present.values()) {
      if (found.key === key) this.judge(key, found.manifest, "when it was published");
    }
  }

  private deleted(key: string): void {
    this.deletions += 1;
    for (const { key: manifestKey, names } of this.present.values()) {
      if (names.has(key)) this.fail(`${key} was deleted, but ${manifestKey} leads to it`);
    }
    if (bucketKeyOf(key).kind === "manifest") this.findPresent(bucketKeyOf(key).volumeId);
  }

  private findPresent(volumeId: string | null = null): void {
    const greatest = new Map<string, string>();
    for (const key of this.bucket.keys()) {
      const of = bucketKeyOf(key);
      if (of.kind === "manifest" && of.volumeId !== null && (volumeId ?? of.volumeId) === of.volumeId) {
        greatest.set(of.volumeId, key);
      }
    }
    for (const known of this.present.keys()) {
      if ((volumeId ?? known) === known && !greatest.has(known)) this.present.delete(known);
    }
    for (const [id, key] of greatest) {
      if (this.present.get(id)?.key === key) continue;
      const manifest = decodeManifest(this.bucket.content(key) as Buffer);
      if (isBadObject(manifest)) this.fail(`${key} is no manifest: ${manifest.detail}`);
      else this.present.set(id, { key, manifest, names: this.namesOf(manifest) });
    }
  }

  private judge(key: string, manifest: VolumeManifest, when: string): void {
    for (const name of this.namesOf(manifest)) {
      if (this.injured.has(name) || this.lost.has(name)) continue;
      if (this.bucket.facts(name) === null) this.fail(`${key} leads to ${name}, which is not there ${when}`);
    }
  }

  private namesOf(manifest: VolumeManifest): ReadonlySet<string> {
    const names = new Set<string>();
    const waiting = [...manifest.pages, ...manifest.segments, ...manifest.bases].map(({ key }) => key);
    for (let key = waiting.pop(); key !== undefined; key = waiting.pop()) {
      if (names.has(key)) continue;
      names.add(key);
      waiting.push(...this.namedBy(key));
    }
    return names;
  }

  /** Opens an object once, with all its checks. */
  private namedBy(key: string): readonly string[] {
    const known = this.checked.get(key);
    if (known !== undefined) return known;
    const content = this.bucket.content(key);
    if (content === null) return [];
    const opened = open(key, content);
    if (typeof opened === "string") {
      if (!this.injured.has(key)) this.fail(`${key} is damaged: ${opened}`);
      return [];
    }
    this.checked.set(key, opened.names);
    return opened.names;
  }
}

/** What an object names, or what is wrong with it. */
function open(key: string, content: Buffer): { readonly names: readonly string[] } | string {
  const { kind } = bucketKeyOf(key);
  switch (kind) {
    case "segment": {
      const opened = openSegment(content);
      return isBadObject(opened) ? opened.detail : { names: [] };
    }
    case "index page": {
      const opened = decodeIndexPage(content);
      return isBadObject(opened) ? opened.detail : { names: opened.segments.map((segment) => segment.key) };
    }
    case "base": {
      const opened = decodeBase(content);
      return isBadObject(opened) ? opened.detail : { names: opened.pages.filter((page) => page !== null) };
    }
    case "base page": {
      const opened = decodeBasePage(content, key);
      if (isBadObject(opened)) return opened.detail;
      return { names: opened.chunks.filter((name) => name !== null).map(chunkKey) };
    }
    case "chunk": {
      const opened = openChunk(content);
      if (isBadObject(opened)) return opened.detail;
      return key.includes(`/${opened.hash}.`) ? { names: [] } : "it holds another content";
    }
    case "manifest":
    case "line":
    case "marker":
    case "probe":
    case "collector":
    case "unknown":
      return "nothing names such an object";
    default:
      throw new TypeError(kind satisfies never);
  }
}
