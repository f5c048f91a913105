/*
 * Stores the extents of one base as chunks: hash on the archive thread, nothing for zeroes, a known name where the same content is in
 * the bucket, else a new object under a new name. Used by base-builder.ts, and for exact bases of snapshots. Remembers what must
 * still be true when the base is published.
 */
import { chunkKey } from "#shared/domain/archive.ts";
import { limits } from "#shared/domain/limits.ts";
import { chunkName } from "#shared/formats/chunk-object.ts";
import type { Random } from "#shared/ports/clock.ts";
import type { ArchiveParts } from "./archive-parts.ts";
import type { BucketPatience } from "./bucket-patience.ts";
import type { ChunkHolder } from "./chunk-directory.ts";
import type { StoredObject } from "./manifest-publisher.ts";

/** An extent, and room for what an object adds to one that does not compress: head and digest. */
const memoryBytes = limits.extentBytes + 4096;

export interface ChunkWriterOptions {
  readonly parts: ArchiveParts;
  readonly patience: BucketPatience;
  readonly isUnwanted: () => boolean;
}

export class ChunkWriter {
  private readonly options: ChunkWriterOptions;
  /** Content that occurs more than once in this base. */
  private readonly own = new Map<string, Promise<string>>();
  /** An extent's memory that is not in use: of as many as this base has had under way at once. */
  private readonly spare: SharedArrayBuffer[] = [];
  private readonly keys = new Set<string>();
  /** Bases of others whose chunks this one names, and which chunks. */
  readonly borrowed = new Map<string, ChunkHolder>();
  readonly borrowedKeys = new Set<string>();
  /** New objects, in the bucket. */
  readonly stored: StoredObject[] = [];
  newBytes = 0;

  constructor(options: ChunkWriterOptions) {
    this.options = options;
  }

  /**
   * The name under which the bucket has this extent, null where it is all zero. `raw` is at most one extent and not changed
   * until it resolves; `previousName` is what the base before named.
   */
  async store(raw: Uint8Array, previousName: string | null): Promise<string | null> {
    const memory = this.spare.pop() ?? new SharedArrayBuffer(memoryBytes);
    const bytes = new Uint8Array(memory, 0, limits.extentBytes);
    bytes.set(raw);
    bytes.fill(0, raw.byteLength);
    const name = await this.nameOfExtent(memory, previousName);
    // Only here: what failed may still be read from.
    this.spare.push(memory);
    return name;
  }

  /** Whether every borrowed name is still named by the one it was borrowed from. */
  get isSound(): boolean {
    return [...this.borrowed.values()].every((holder) => this.options.parts.chunks.isNamed(holder));
  }

  /** The base is published, or given up. */
  end(): void {
    for (const key of this.keys) this.options.parts.uploads.end(key);
    this.keys.clear();
  }

  private async nameOfExtent(memory: SharedArrayBuffer, previousName: string | null): Promise<string | null> {
    const hash = await this.options.parts.worker.hash(memory);
    if (hash === null) return null;
    if (previousName?.startsWith(`${hash}.`)) return previousName;
    const known = this.own.get(hash);
    if (known !== undefined) return await known;
    const name = this.nameOf(hash, memory);
    if (this.own.size < limits.knownChunksMax) this.own.set(hash, name);
    return await name;
  }

  private async nameOf(hash: string, memory: SharedArrayBuffer): Promise<string> {
    const { parts, patience, isUnwanted } = this.options;
    const known = parts.chunks.find(hash);
    if (known !== null) {
      this.borrowed.set(known.baseKey, known);
      this.borrowedKeys.add(chunkKey(known.name));
      this.register(chunkKey(known.name));
      return known.name;
    }
    const { object, sha256 } = await parts.worker.chunk(memory, hash, parts.options.level);
    const name = chunkName(hash, drawSerial(parts.random));
    const key = chunkKey(name);
    this.register(key);
    await patience.run("upload a chunk", () => parts.store.put(key, object, { sha256 }), isUnwanted);
    this.newBytes += object.byteLength;
    this.stored.push({
      key,
      bytes: object.byteLength,
      digest: object.slice(object.byteLength - 32),
    });
    return name;
  }

  private register(key: string): void {
    if (this.keys.has(key)) return;
    this.keys.add(key);
    this.options.parts.uploads.begin(key);
  }
}

/** 1 to 2^48: a name with it was never used before, by whomever. */
export function drawSerial(random: Random): number {
  return 1 + (Number.parseInt(random.hex(6), 16) % (2 ** 48 - 1));
}
