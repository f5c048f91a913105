/*
 * Metadata contexts that an export offers, what a LIST or SET query matches, and the runs that BLOCK_STATUS answers with. Used by
 * nbd-negotiation.ts (which asks the export for changed ranges once, when a context is chosen) and nbd-commands.ts. The names
 * and flags are in docs/formats/nbd.md.
 */
import { limits } from "#shared/domain/limits.ts";
import type { BlockExport } from "#shared/ports/block-export.ts";
import type { ByteRange } from "#shared/ports/history.ts";

export const contextKind = { allocation: 1, residency: 2, changed: 3 } as const;

/** A context of this server; `id` stands in block status chunks. */
export interface MetaContextChoice {
  readonly id: number;
  readonly kind: (typeof contextKind)[keyof typeof contextKind];
  readonly name: string;
  /** Of `changed`: where the export differed from the point when the context was asked for. */
  readonly ranges: readonly ByteRange[];
}

/** A descriptor: a run that follows the one before it. */
export interface FlaggedRun {
  readonly length: number;
  readonly flags: number;
}

const always: readonly MetaContextChoice[] = [
  { id: contextKind.allocation, kind: contextKind.allocation, name: "base:allocation", ranges: [] },
  { id: contextKind.residency, kind: contextKind.residency, name: "varve:residency", ranges: [] },
];

/** `varve:changed:POINT`, and the name by which qemu asks for the same. */
const changedPrefixes = ["varve:changed:", "qemu:dirty-bitmap:"];
const changedFlag = 1;
const remoteFlag = 1;

/** LIST: all that need no point without a query; `namespace:` alone means all of that namespace. */
function listed(queries: readonly string[]): readonly MetaContextChoice[] {
  if (queries.length === 0) return always;
  return always.filter((context) =>
    queries.some(
      (query) => query === context.name || (query.endsWith(":") && context.name.startsWith(query)),
    ),
  );
}

/**
 * What the queries match: exact names in SET. Contexts of a point are there where the point opens; one that does not is ignored
 * like any unknown name, as the protocol has it.
 */
export async function matchContexts(
  volume: BlockExport,
  queries: readonly string[],
  setting: boolean,
): Promise<readonly MetaContextChoice[]> {
  const plain = setting ? always.filter(({ name }) => queries.includes(name)) : listed(queries);
  const wanted = [...new Set(queries)].filter((query) => pointOf(query) !== null);
  const changed: MetaContextChoice[] = [];
  for (const name of wanted.slice(0, limits.nbdChangedContextsMax)) {
    const ranges = await volume.changesSince?.(pointOf(name) ?? "").catch(() => undefined);
    if (ranges === undefined) continue;
    changed.push({ id: contextKind.changed + changed.length, kind: contextKind.changed, name, ranges });
  }
  return [...plain, ...changed];
}

function pointOf(query: string): string | null {
  const prefix = changedPrefixes.find((one) => query.startsWith(one) && query.length > one.length);
  return prefix === undefined ? null : query.slice(prefix.length);
}

/** [offset, offset + length) as runs of changed and unchanged bytes; at most `runsMax`, the last may end early. */
export function changedRuns(
  ranges: readonly ByteRange[],
  offset: number,
  length: number,
  runsMax: number,
): readonly FlaggedRun[] {
  const end = offset + length;
  const runs: FlaggedRun[] = [];
  let position = offset;
  for (let at = firstEndingAfter(ranges, offset); position < end && runs.length < runsMax; at += 1) {
    const range = ranges[at];
    const start = Math.min(end, range?.offset ?? end);
    if (start > position) {
      runs.push({ length: start - position, flags: 0 });
      position = start;
      if (runs.length === runsMax) break;
    }
    if (range === undefined || position >= end) break;
    const stop = Math.min(end, range.offset + range.length);
    runs.push({ length: stop - position, flags: changedFlag });
    position = stop;
  }
  return runs;
}

/** The same by residency, extent by extent. */
export function residencyRuns(
  volume: BlockExport,
  offset: number,
  length: number,
  runsMax: number,
): readonly FlaggedRun[] {
  if (volume.isLocal === undefined) return [{ length, flags: 0 }];
  const end = offset + length;
  const runs: { length: number; flags: number }[] = [];
  for (let position = offset; position < end; ) {
    const extent = Math.floor(position / limits.extentBytes);
    const stop = Math.min(end, (extent + 1) * limits.extentBytes);
    const flags = volume.isLocal(extent) ? 0 : remoteFlag;
    const last = runs.at(-1);
    if (last?.flags === flags) last.length += stop - position;
    else if (runs.length === runsMax) break;
    else runs.push({ length: stop - position, flags });
    position = stop;
  }
  return runs;
}

function firstEndingAfter(ranges: readonly ByteRange[], offset: number): number {
  let low = 0;
  let high = ranges.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const range = ranges[middle];
    if (range !== undefined && range.offset + range.length <= offset) low = middle + 1;
    else high = middle;
  }
  return low;
}
