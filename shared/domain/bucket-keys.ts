/*
 * What a key of the bucket is, from its text alone: the reverse of the key makers in archive.ts. Collector, check and usage
 * sort a listing by it; a key of no known shape is nobody's business and left alone. Pure.
 */

export type BucketKeyKind =
  | "marker"
  | "probe"
  | "collector"
  | "line"
  | "manifest"
  | "segment"
  | "index page"
  | "base"
  | "base page"
  | "chunk"
  | "unknown";

export interface BucketKey {
  readonly kind: BucketKeyKind;
  /** Null where it belongs to no single volume. */
  readonly volumeId: string | null;
}

const ofVolume = /^volumes\/([0-9a-f]{16})\/(.+)$/;
const writer = "[0-9a-f]{16}\\.[0-9]{8,16}";

const insideVolume: readonly (readonly [BucketKeyKind, RegExp])[] = [
  ["manifest", /^manifests\/[0-9]{6,}\.[0-9a-f]{16}\.[0-9]{8,16}\.[0-9]{10,16}$/],
  ["line", /^lines\/[0-9]{6,}$/],
  ["segment", new RegExp(`^log/[0-9]{16}-[0-9]{16}\\.${writer}\\.seg$`)],
  ["index page", new RegExp(`^index/[0-9]{16}-[0-9]{16}\\.${writer}\\.idx$`)],
  ["base", new RegExp(`^bases/[0-9]{16}-[0-9]{16}\\.${writer}(\\.[0-9]{16})?\\.base$`)],
  ["base page", new RegExp(`^pages/[0-9]{16}-[0-9]{8,}\\.${writer}\\.page$`)],
];

const chunk = /^chunks\/([0-9a-f]{2})\/\1[0-9a-f]{62}\.[1-9][0-9]{0,15}$/;

export function bucketKeyOf(key: string): BucketKey {
  const inVolume = ofVolume.exec(key);
  if (inVolume !== null) {
    const [, volumeId = "", rest = ""] = inVolume;
    const found = insideVolume.find(([, pattern]) => pattern.test(rest));
    return { kind: found?.[0] ?? "unknown", volumeId };
  }
  if (chunk.test(key)) return { kind: "chunk", volumeId: null };
  if (key === "varve-bucket.json") return { kind: "marker", volumeId: null };
  if (key.startsWith("probe/")) return { kind: "probe", volumeId: null };
  if (key.startsWith("collector/")) return { kind: "collector", volumeId: null };
  return { kind: "unknown", volumeId: null };
}

/** What the collector may delete, in the order in which it does: what names others goes before what it names. */
export const collectableKinds = [
  "manifest",
  "base",
  "index page",
  "base page",
  "segment",
  "chunk",
  "line",
] as const satisfies readonly BucketKeyKind[];

/** Place in that order; -1 for what is never deleted. */
export function deleteRank(kind: BucketKeyKind): number {
  return (collectableKinds as readonly BucketKeyKind[]).indexOf(kind);
}
