/*
 * Compares what Varve says a disk was with what the ledger knows: points of the past through a VolumeHistory, the present disk through
 * an export, image files on the machine's disk. Called by past-run.ts and past-operations.ts.
 */
import type { Histories } from "#shared/adapters/history/histories.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { invariant } from "#shared/domain/invariant.ts";
import type { PointSource, VolumeHistory } from "#shared/ports/history.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { Bytes } from "../oracle.ts";
import type { PastLife } from "./past-life.ts";
import type { ServedVolume } from "./past-process.ts";
import type { PastWorld, Region } from "./past-world.ts";
import type { VolumeLedger } from "./volume-ledger.ts";

/** Points of ascending LSNs, each opened and compared in every region where clients write, and at random places besides. */
export async function judgePoints(
  world: PastWorld,
  history: VolumeHistory,
  ledger: VolumeLedger,
  lsns: readonly number[],
): Promise<void> {
  let state: Bytes | null = null;
  let at = 0;
  for (const lsn of lsns) {
    if (state === null || lsn - at > 200) state = ledger.contentAt(lsn);
    else for (let next = at + 1; next <= lsn; next++) state = ledger.step(state, next);
    at = lsn;
    await judgePoint(world, history, ledger, lsn, state);
  }
}

export async function judgePoint(
  world: PastWorld,
  history: VolumeHistory,
  ledger: VolumeLedger,
  lsn: number,
  content: Bytes,
): Promise<void> {
  const what = `${ledger.name}@lsn:${lsn}`;
  const { scheduler } = world;
  const source = await scheduler.until(history.open(lsn), `opening ${what}`).catch((cause: unknown) => {
    world.throwFailure();
    throw new Error(`${what} does not open: ${String(cause)}`, { cause });
  });
  try {
    if (source.sizeBytes !== content.length) {
      throw new Error(`${what} has ${source.sizeBytes} bytes, ${content.length} would be right`);
    }
    for (const place of placesToRead(world, content.length))
      await comparePlace(world, source, what, place, content);
    if (world.random.chance(0.1)) await judgeExtents(world, source, what, content);
    world.count("points judged");
  } finally {
    await scheduler.until(source.close(), `closing ${what}`);
  }
}

/** Points of the bucket alone, while one of its objects is damaged: each is right or an error, never anything else. */
export async function judgeInjured(
  world: PastWorld,
  histories: Histories,
  ledger: VolumeLedger,
): Promise<void> {
  const { random, scheduler } = world;
  const { archivedLsn, retainedFromLsn } = world.watch.present.get(ledger.id)?.manifest ?? {};
  if (archivedLsn === undefined || archivedLsn === 0 || archivedLsn > ledger.lastLsn) return;
  const history = await scheduler.until(histories.fromBucket(ledger.id), "a history");
  for (let count = 0; count < 10; count++) {
    const lsn = random.integer(Math.max(1, retainedFromLsn ?? 1), archivedLsn + 1);
    try {
      await judgePoint(world, history, ledger, lsn, ledger.contentAt(lsn));
    } catch (cause) {
      world.throwFailure();
      let error = cause;
      while (error instanceof Error && !(error instanceof VarveError) && error.cause !== undefined)
        error = error.cause;
      if (!(error instanceof VarveError) || error.kind !== "Corrupt") throw cause;
      world.count("damaged points reported");
    }
  }
}

function placesToRead(world: PastWorld, sizeBytes: number): readonly Region[] {
  const { random, plan } = world;
  if (random.chance(0.03)) return [{ offset: 0, length: sizeBytes }];
  const offset = random.integer(0, sizeBytes);
  const places = [...plan.regions, { offset, length: random.integer(1, 32 * 1024) }];
  return places
    .filter((place) => place.offset < sizeBytes)
    .map((place) => ({ offset: place.offset, length: Math.min(place.length, sizeBytes - place.offset) }));
}

async function comparePlace(
  world: PastWorld,
  source: PointSource,
  what: string,
  { offset, length }: Region,
  content: Bytes,
): Promise<void> {
  const slab: Slab = { bytes: Buffer.alloc(length, 0xaa), address: 0 };
  await world.scheduler.until(source.read(slab, 0, length, offset), `reading ${what}`);
  const wrong = firstDifference(slab.bytes, content.subarray(offset, offset + length));
  if (wrong < 0) return;
  throw new Error(
    `${what} at ${offset + wrong} (extent ${Math.floor((offset + wrong) / (4 << 20))}) reads ${slab.bytes[wrong]}, ` +
      `${content[offset + wrong]} would be right`,
  );
}

/** Extents that are not named hold nothing but zeroes; ranges that are not allocated neither. */
async function judgeExtents(
  world: PastWorld,
  source: PointSource,
  what: string,
  content: Bytes,
): Promise<void> {
  const extentBytes = 4 << 20;
  const named = new Set<number>();
  const list = async (): Promise<void> => {
    for await (const extent of source.extents()) named.add(extent);
  };
  await world.scheduler.until(list(), `extents of ${what}`);
  for (let start = 0; start < content.length; start += extentBytes) {
    if (named.has(start / extentBytes)) continue;
    if (!isZero(content.subarray(start, start + extentBytes))) {
      throw new Error(`${what} does not name extent ${start / extentBytes}, which is not zero`);
    }
  }
  for (const run of source.allocation(0, content.length, 1000)) {
    if (!run.allocated && !isZero(content.subarray(run.offset, run.offset + run.length))) {
      throw new Error(`${what} says that [${run.offset}, +${run.length}) is not allocated`);
    }
  }
}

/** Everything was answered: the disk is the fold of the whole log, byte for byte. */
export async function judgePresent(life: PastLife, volume: ServedVolume): Promise<void> {
  const { ledger, session, name } = volume;
  await life.scheduler.until(session.sync(), `syncing ${name}`);
  const { durableLsn, lastLsn } = session.status().log;
  if (durableLsn !== ledger.lastLsn || lastLsn !== durableLsn) {
    throw new Error(
      `${name}: the log ends at LSN ${lastLsn} (durable ${durableLsn}), LSN ${ledger.lastLsn} was seen`,
    );
  }
  const right = ledger.contentAt(ledger.lastLsn);
  const found = await readDisk(life, volume);
  if (found.length !== right.length) {
    throw new Error(`${name} has ${found.length} bytes, ${right.length} would be right`);
  }
  const wrong = firstDifference(found, right);
  if (wrong >= 0) {
    throw new Error(
      `${name} at LSN ${ledger.lastLsn}, byte ${wrong}: reads ${found[wrong]}, ${right[wrong]} would be right`,
    );
  }
  life.world.count("disks judged");
}

async function readDisk(life: PastLife, volume: ServedVolume): Promise<Buffer> {
  const opened = volume.session.openExport("judge");
  const { sizeBytes } = opened;
  const memory: Slab = { bytes: Buffer.alloc(sizeBytes, 0xaa), address: 0 };
  const pieceBytes = life.random.pick([256 * 1024, 1 << 20, sizeBytes]);
  try {
    for (let offset = 0; offset < sizeBytes; offset += pieceBytes) {
      const length = Math.min(pieceBytes, sizeBytes - offset);
      await life.scheduler.until(
        new Promise<void>((resolve, reject) => {
          const done = { complete: (error: Error | null) => (error === null ? resolve() : reject(error)) };
          if (opened.read(offset, length, memory, offset, done)) resolve();
        }),
        `reading ${volume.name}`,
      );
    }
  } finally {
    opened.close();
  }
  return memory.bytes;
}

/** After a clean close an image that is whole is the disk. */
export function judgeImageFile(world: PastWorld, ledger: VolumeLedger, path: string): void {
  const file = world.disk.names.seen.files.get(path)?.cache;
  if (file === undefined) return;
  const bytes = Buffer.alloc(file.sizeBytes);
  file.read(bytes, 0);
  const right = ledger.contentAt(ledger.lastLsn);
  if (Buffer.compare(bytes, right) !== 0) {
    throw new Error(`${path} is not the disk: byte ${firstDifference(bytes, right)} of ${right.length}`);
  }
  world.count("image files judged");
}

/** -1 where both are the same. */
function firstDifference(one: Uint8Array, other: Uint8Array): number {
  if (Buffer.compare(one, other) === 0) return -1;
  invariant(one.length === other.length, "contents of one length are compared");
  let at = 0;
  while (one[at] === other[at]) at += 1;
  return at;
}

const zeroes = new Uint8Array(1 << 20);

function isZero(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; at += zeroes.length) {
    const part = bytes.subarray(at, at + zeroes.length);
    if (Buffer.compare(part, zeroes.subarray(0, part.length)) !== 0) return false;
  }
  return true;
}
