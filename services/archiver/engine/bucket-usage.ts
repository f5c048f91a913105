/*
 * `varve bucket usage`: one listing, summed by volume and kind, with what that costs a month at list price, and the requests of
 * this process. Called by bucket-keeper.ts and, without a server, by services/cli/commands/bucket.ts.
 */
import { type BucketKeyKind, bucketKeyOf } from "#shared/domain/bucket-keys.ts";
import { type BucketPrices, requestCost, storageCost } from "#shared/domain/bucket-prices.ts";
import type {
  BucketLimits,
  BucketUsageReport,
  BucketUsageRow,
  BucketVolumeRow,
} from "#shared/ports/bucket-administration.ts";
import type { BucketReader } from "./bucket-reader.ts";

const sharedRow = "(shared)";
const otherRow = "(other)";
/** Manifests and their likes are one line: nobody pays for them by kind. */
const shownKind = (kind: BucketKeyKind): string =>
  kind === "segment" || kind === "chunk" || kind === "unknown" ? kind : "metadata";

export async function bucketUsage(
  reader: BucketReader,
  prices: BucketPrices,
  notes: readonly string[],
  limits: BucketLimits | null,
): Promise<BucketUsageReport> {
  const volumes = await volumesOf(reader);
  const names = new Map(volumes.map(({ volumeId, volume }) => [volumeId, volume]));
  const rows = new Map<
    string,
    { volume: string; volumeId: string | null; kind: string; objects: number; bytes: number }
  >();
  let objects = 0;
  let bytes = 0;
  for await (const facts of reader.store.list("")) {
    const { kind, volumeId } = bucketKeyOf(facts.key);
    const volume =
      volumeId === null ? (kind === "chunk" ? sharedRow : otherRow) : (names.get(volumeId) ?? volumeId);
    const shown = shownKind(kind);
    const id = `${volumeId ?? volume} ${shown}`;
    const row = rows.get(id) ?? { volume, volumeId, kind: shown, objects: 0, bytes: 0 };
    rows.set(id, row);
    row.objects += 1;
    row.bytes += facts.bytes;
    objects += 1;
    bytes += facts.bytes;
  }
  const counters = { ...reader.store.counters };
  return {
    place: reader.store.place,
    rows: [...rows.values()]
      .sort((a, b) => (a.volume === b.volume ? (a.kind < b.kind ? -1 : 1) : a.volume < b.volume ? -1 : 1))
      .map((row): BucketUsageRow => ({ ...row, monthlyCost: storageCost(prices, row.bytes) })),
    objects,
    bytes,
    monthlyCost: storageCost(prices, bytes),
    prices: prices.name,
    requests: counters,
    requestCost: requestCost(prices, counters),
    limits,
    volumes: [...volumes].sort((a, b) => (a.volume < b.volume ? -1 : 1)),
    notes,
  };
}

/** Volumes, as far as their present manifests can be read; usage is no check. */
async function volumesOf(reader: BucketReader): Promise<readonly BucketVolumeRow[]> {
  const found: BucketVolumeRow[] = [];
  for (const { volumeId, manifests } of await reader.volumes()) {
    const key = manifests.at(-1)?.key;
    if (key === undefined) continue;
    const manifest = await reader.manifest(key).catch(() => null);
    if (manifest === null) continue;
    const { historyMs, archivedLsn, retainedFromLsn, snapshots } = manifest;
    const volume = manifest.deletedAtMs === null ? manifest.name : `${manifest.name} (deleted)`;
    found.push({ volume, volumeId, historyMs, archivedLsn, retainedFromLsn, snapshots: snapshots.length });
  }
  return found;
}
