/*
 * Bits that turn over while nothing runs: in log records and segment headers that a durable mark covers, and in the image's
 * checkpoint. Opening must report such damage, or not be harmed by it; never may it serve other data in silence.
 * Called by run-seed.ts between two lives; reads the log's own format to know what a mark covers.
 */
import { decodeCheckpoint, isBadCheckpoint } from "#shared/formats/checkpoint.ts";
import { isBadRecord, readRecordHeader } from "#shared/formats/log-record.ts";
import { isBadSegmentHeader, readSegmentHeader } from "#shared/formats/log-segment.ts";
import type { SeededRandom } from "./scheduler.ts";
import type { World } from "./world.ts";

const blockBytes = 4096;

/** Bytes of a file that a durable mark covers. */
interface Target {
  readonly what: "record" | "segment header" | "checkpoint";
  readonly path: string;
  readonly offset: number;
  readonly length: number;
  /** The last LSN that depends on these bytes. */
  readonly lsn: number;
}

export interface Damage {
  readonly what: string;
  /** Turns the bit back, where the file still is as it was damaged: what was misread once may be read well again. */
  undo(): void;
}

export function damageAtRest(world: World, checkpointPath: string, random: SeededRandom): Damage | null {
  const targets = coveredTargets(world, checkpointPath);
  const kinds = [...new Set(targets.map((target) => target.what))];
  if (kinds.length === 0) return null;
  const kind = random.pick(kinds);
  const target = random.pick(targets.filter((one) => one.what === kind));
  const offset = target.offset + random.integer(0, target.length);
  const bit = random.integer(0, 8);
  if (!world.disk.flipBit(target.path, offset, bit)) return null;
  const damaged = world.fileBytes(target.path);
  const what = `bit ${bit} of byte ${offset} of ${target.path} (${target.what}, LSN ${target.lsn})`;
  world.note(`damage: ${what}`);
  world.count(`damage in a ${target.what}`);
  return {
    what,
    undo: () => {
      const now = world.fileBytes(target.path);
      if (now !== null && damaged !== null && now.equals(damaged)) {
        world.disk.flipBit(target.path, offset, bit);
      }
    },
  };
}

/** Everything in the log's folder, by path: an opening that finds damage changes none of it. */
export function snapshotOf(world: World): Map<string, Buffer> {
  const files = new Map<string, Buffer>();
  for (const path of world.disk.names.seen.files.keys()) {
    if (path.startsWith(`${world.paths.log}/`)) files.set(path, world.fileBytes(path) as Buffer);
  }
  return files;
}

export function differenceOf(before: Map<string, Buffer>, after: Map<string, Buffer>): string {
  for (const [path, bytes] of before) {
    const now = after.get(path);
    if (now === undefined) return `${path} is gone`;
    if (!now.equals(bytes)) return `${path} changed`;
  }
  for (const path of after.keys()) if (!before.has(path)) return `${path} is new`;
  return "";
}

function coveredTargets(world: World, checkpointPath: string): Target[] {
  const found: Target[] = [];
  let mark = 0;
  const checkpointBytes = world.fileBytes(checkpointPath);
  if (checkpointBytes !== null) {
    const checkpoint = decodeCheckpoint(checkpointBytes);
    if (!isBadCheckpoint(checkpoint)) mark = checkpoint.appliedLsn;
    found.push({
      what: "checkpoint",
      path: checkpointPath,
      offset: 0,
      length: checkpointBytes.byteLength,
      lsn: 0,
    });
  }
  const segments = [...world.disk.names.seen.files.keys()].filter((path) =>
    path.startsWith(`${world.paths.log}/`),
  );
  let endLsn = 0;
  for (const path of segments.sort()) {
    const part = collect(path, world.fileBytes(path) as Buffer, endLsn, found);
    mark = Math.max(mark, part.mark);
    endLsn = Math.max(endLsn, part.endLsn);
  }
  return found.filter((target) => target.lsn <= mark);
}

/** Adds a segment's header and records; gives the greatest mark in them, and where they end. */
function collect(
  path: string,
  bytes: Buffer,
  endLsnBefore: number,
  found: Target[],
): { readonly mark: number; readonly endLsn: number } {
  const segment = bytes.byteLength < blockBytes ? null : readSegmentHeader(bytes.subarray(0, blockBytes));
  if (segment === null || isBadSegmentHeader(segment)) return { mark: 0, endLsn: 0 };
  let mark = segment.durableLsn;
  let lsn = segment.firstLsn;
  for (let offset = blockBytes; offset < bytes.byteLength; ) {
    const record = readRecordHeader(bytes, offset);
    if (isBadRecord(record) || record.firstLsn !== lsn) break;
    mark = Math.max(mark, record.durableLsn);
    found.push({ what: "record", path, offset, length: record.recordBytes, lsn: record.lastLsn });
    lsn = record.lastLsn + 1;
    offset += record.recordBytes;
  }
  // Without the header of a segment that replaces a part of an older one, the older one's records count again: then a mark
  // must cover all that stands here.
  const needed = segment.firstLsn < endLsnBefore ? lsn - 1 : segment.firstLsn;
  found.push({ what: "segment header", path, offset: 0, length: blockBytes, lsn: needed });
  return { mark, endLsn: lsn };
}
