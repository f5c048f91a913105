/*
 * Publishes one volume's manifests: every change in its turn, all that wait at a time in one manifest, numbered, immutable, read
 * back. Before a manifest goes, what it names is in the bucket, a full tail of segments has become an index page, and the next line's
 * marker is not there (rescued elsewhere). Called by volume-archiver.ts; next: held-ledger.ts.
 */
import { indexPageKey, lineMarkerKey, manifestKey, type VolumeManifest } from "#shared/domain/archive.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { encodeManifest } from "#shared/formats/manifest-object.ts";
import type { ArchiveSubject, ManifestFacts } from "#shared/ports/archive.ts";
import type { ArchiveParts } from "./archive-parts.ts";
import type { BucketPatience } from "./bucket-patience.ts";
import { factsUpTo } from "./manifest-facts.ts";
import { fetchTails } from "./segment-tails.ts";

export type ManifestChange = (manifest: VolumeManifest) => VolumeManifest;

/** An object that was stored, and how to store it again should the bucket lose it. */
export interface StoredObject {
  readonly key: string;
  readonly bytes: number;
  /** Its last 32 bytes, the SHA-256 of the rest. */
  readonly digest: Uint8Array;
}

export interface StoredPage extends StoredObject {
  /** Kept until the page is held: nothing else knows which segments it names. */
  readonly object: Uint8Array;
}

export interface PublisherOptions {
  readonly parts: ArchiveParts;
  readonly patience: BucketPatience;
  readonly subject: ArchiveSubject;
  /** Refuses a second object under one key: the store's probe passed. */
  readonly conditionalPut: boolean;
  readonly lineNumber: number;
  /** A manifest could not be stored and will not be tried again; its changes are rejected, too. */
  readonly onFailed: (error: VarveError) => void;
  readonly onPublished: (
    manifest: VolumeManifest,
    stored: StoredObject,
    pages: readonly StoredPage[],
  ) => void;
}

interface WaitingChange {
  readonly change: ManifestChange;
  readonly resolve: (manifest: VolumeManifest) => void;
  readonly reject: (error: VarveError) => void;
}

export class ManifestPublisher {
  private readonly options: PublisherOptions;
  private waiting: WaitingChange[] = [];
  private running: Promise<void> | null = null;
  private lastNumber = 0;
  /** The last one that was published, by whomever; null before the first. */
  present: VolumeManifest | null;
  readonly counters = { manifests: 0, indexPages: 0 };

  constructor(options: PublisherOptions, present: VolumeManifest | null) {
    this.options = options;
    this.present = present;
  }

  /** Resolves with the first published manifest that has the change. */
  publish(change: ManifestChange): Promise<VolumeManifest> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ change, resolve, reject });
      this.start();
    });
  }

  private start(): void {
    this.running ??= this.run().finally(() => {
      this.running = null;
      // Somebody may have come after the last look and before this.
      if (this.waiting.length > 0) this.start();
    });
  }

  get isPublishing(): boolean {
    return this.running !== null || this.waiting.length > 0;
  }

  /** Resolves when no publishing is under way. */
  async settled(): Promise<void> {
    await this.running;
  }

  private async run(): Promise<void> {
    // A turn later: what happens in the same round goes into the same manifest.
    await Promise.resolve();
    while (this.waiting.length > 0) {
      const taken = this.waiting;
      this.waiting = [];
      const accepted: WaitingChange[] = [];
      // One look at the facts: a change is made to what will be published, so that none drops what a pin beside it needs.
      const facts = this.options.subject.facts();
      let next = this.withFacts(this.present ?? this.first(facts), facts);
      for (const one of taken) {
        try {
          next = this.withFacts(one.change(next), facts);
          accepted.push(one);
        } catch (cause) {
          one.reject(toVarveError(cause, "changing a manifest"));
        }
      }
      if (accepted.length === 0) continue;
      try {
        const manifest = await this.store(next, facts);
        for (const { resolve } of accepted) resolve(manifest);
      } catch (cause) {
        const error = toVarveError(cause, "publishing a manifest");
        this.options.onFailed(error);
        for (const { reject } of accepted) reject(error);
      }
    }
  }

  private async store(changed: VolumeManifest, facts: ManifestFacts): Promise<VolumeManifest> {
    const { parts } = this.options;
    const pages: StoredPage[] = [];
    let next = changed;
    while (next.segments.length > limits.manifestSegmentsMax) next = await this.turnPage(next, pages);
    this.lastNumber += 1;
    const manifest: VolumeManifest = { ...this.withFacts(next, facts), number: this.lastNumber };
    const key = manifestKey(manifest);
    const object = encodeManifest(manifest);
    await this.options.patience.run("publish a manifest", () => this.putChecked(key, object));
    this.present = manifest;
    this.counters.manifests += 1;
    for (const page of pages) parts.uploads.end(page.key);
    const digest = Uint8Array.from(object.subarray(object.length - 32));
    this.options.onPublished(manifest, { key, bytes: object.length, digest }, pages);
    return manifest;
  }

  /** The marker of the next line first, the manifest, and what the bucket now says of it. */
  private async putChecked(key: string, object: Buffer): Promise<void> {
    const { parts, subject, lineNumber, conditionalPut } = this.options;
    const marker = await parts.store.head(lineMarkerKey(subject.record.id, lineNumber + 1));
    if (marker !== null) throw rescuedElsewhere(subject.record.name);
    // "exists" may be an earlier try of ours whose answer was lost: what is read back tells.
    await parts.store.put(key, object, conditionalPut ? { onlyNew: true } : {});
    parts.failpoint("publish");
    const found = await parts.store.get(key);
    if (found === null) {
      throw new VarveError("ManifestLost", "Retry", `${key} is not in the bucket although it was stored`);
    }
    if (!found.equals(object)) throw otherArchiver(subject.record.name, key);
  }

  /** The oldest segments of a full tail become an index page. */
  private async turnPage(manifest: VolumeManifest, pages: StoredPage[]): Promise<VolumeManifest> {
    const { parts, patience, subject } = this.options;
    const refs = manifest.segments.slice(0, limits.manifestSegmentsMax);
    const tails = await patience.run("read segment footers", () => fetchTails(parts.store, refs));
    const owner = {
      volumeId: subject.record.id,
      line: subject.log.line,
      archiverEpoch: subject.archiverEpoch,
    };
    const firstLsn = refs[0]?.firstLsn ?? 0;
    const key = indexPageKey(owner, firstLsn, refs.at(-1)?.lastLsn ?? firstLsn);
    const { object, ref } = await parts.worker.page(owner.volumeId, key, tails);
    parts.uploads.begin(key);
    await patience.run("upload an index page", () => parts.store.put(key, object));
    this.counters.indexPages += 1;
    pages.push({ key, bytes: object.length, digest: object.slice(object.length - 32), object });
    return {
      ...manifest,
      pages: [...manifest.pages, ref],
      segments: manifest.segments.slice(refs.length),
    };
  }

  private first(facts: ManifestFacts): VolumeManifest {
    const { subject } = this.options;
    const { record } = subject;
    return {
      volumeId: record.id,
      name: record.name,
      sizeBytes: facts.beginBytes,
      durability: record.durability,
      createdAtMs: record.createdAtMs,
      lineNumber: this.options.lineNumber,
      line: subject.log.line,
      archiverEpoch: subject.archiverEpoch,
      number: 0,
      writtenAtMs: 0,
      ancestors: [],
      origin: facts.origin,
      beginBytes: facts.beginBytes,
      archivedLsn: 0,
      archivedEpoch: 0,
      archivedChecksum: noChecksum,
      retainedFromLsn: 0,
      historyMs: facts.historyMs,
      deletedAtMs: facts.deletedAtMs,
      snapshots: [],
      rebases: [],
      resizes: [],
      gaps: [],
      pins: [],
      bases: [],
      pages: [],
      segments: [],
    };
  }

  /** What the host knows. */
  private withFacts(manifest: VolumeManifest, facts: ManifestFacts): VolumeManifest {
    const { subject, lineNumber, parts } = this.options;
    return {
      ...manifest,
      name: subject.record.name,
      durability: subject.record.durability,
      ...factsUpTo(facts, manifest.archivedLsn),
      lineNumber,
      line: subject.log.line,
      archiverEpoch: subject.archiverEpoch,
      writtenAtMs: parts.clock.wallTimeMs(),
    };
  }
}

/** As manifests have it. */
export function checksumText(checksum: bigint): string {
  return checksum.toString(16).padStart(16, "0");
}

const noChecksum = checksumText(0n);

export function rescuedElsewhere(name: string): VarveError {
  return new VarveError(
    "RescuedElsewhereError",
    "Fenced",
    `volume ${name}: this volume was rescued elsewhere`,
    {
      hint:
        "Another machine serves it from the bucket, from the last archived entry on. What was written here after that is in this " +
        "machine's log and image only: stop Varve, copy what you need out of disk.raw, then remove the volume here.",
      fields: { name },
    },
  );
}

export function otherArchiver(name: string, key: string): VarveError {
  return new VarveError(
    "OtherArchiverError",
    "Fenced",
    `volume ${name}: another Varve archives the same volume into this bucket (${key})`,
    {
      hint: "A data directory was copied and both copies run. Stop one; to use the copy, make a clone of the volume instead.",
      fields: { name, key },
    },
  );
}
