/*
 * Which chunks the bases of this process's volumes name, by the hash of their content: an extent that another volume (a clone's parent)
 * or an older place on the same disk has in the bucket already is not uploaded again. Bounded; a miss costs an upload, nothing
 * else. A name counts only while a present manifest names a base that names it, and is asked for again at publishing.
 */
import type { VolumeManifest } from "#shared/domain/archive.ts";
import { limits } from "#shared/domain/limits.ts";

/** Who names a chunk. */
export interface ChunkHolder {
  readonly volumeId: string;
  readonly baseKey: string;
}

interface KnownChunk extends ChunkHolder {
  readonly name: string;
}

export class ChunkDirectory {
  private readonly known = new Map<string, KnownChunk>();
  private readonly manifests = new Map<string, () => VolumeManifest | null>();
  private readonly loaded = new Set<string>();

  /** `present` is the volume's published manifest, for as long as it is served here. */
  join(volumeId: string, present: () => VolumeManifest | null): () => void {
    this.manifests.set(volumeId, present);
    return () => {
      if (this.manifests.get(volumeId) === present) this.manifests.delete(volumeId);
    };
  }

  /** The newest base of each volume whose chunks nobody has told of yet; they count as told from now on. */
  takeUnknownBases(): readonly ChunkHolder[] {
    if (this.known.size >= limits.knownChunksMax) return [];
    const found: ChunkHolder[] = [];
    for (const [volumeId, present] of this.manifests) {
      const base = present()?.bases.at(-1);
      if (base === undefined || this.loaded.has(base.key)) continue;
      this.loaded.add(base.key);
      found.push({ volumeId, baseKey: base.key });
    }
    return found;
  }

  add(name: string, holder: ChunkHolder): void {
    this.loaded.add(holder.baseKey);
    const hash = name.slice(0, hashLength);
    const old = this.known.get(hash);
    if (old === undefined && this.known.size >= limits.knownChunksMax) return;
    if (old === undefined || !this.isNamed(old)) this.known.set(hash, { name, ...holder });
  }

  find(hash: string): KnownChunk | null {
    const known = this.known.get(hash);
    return known !== undefined && this.isNamed(known) ? known : null;
  }

  /** Whether the holder's present manifest still names that base. */
  isNamed({ volumeId, baseKey }: ChunkHolder): boolean {
    const manifest = this.manifests.get(volumeId)?.();
    return manifest?.bases.some((base) => base.key === baseKey) ?? false;
  }
}

const hashLength = 64;
