/*
 * The bucket as the source of a fill: the disk at the newest LSN that it has, extent by extent, exact, so that the log goes on behind it. A
 * volume of which the bucket has nothing that fits begins empty, or a clone with its parent's point, while its log has everything. Read by
 * fill-copy.ts; below it the reader of the past (adapters/history/bucket-images.ts). Rules: docs/specs/replica-fill.md, "From the bucket".
 */
import type { PlacementOrigin } from "#shared/domain/cluster.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { ArchivedImages } from "#shared/ports/archived-images.ts";
import type { PointSource } from "#shared/ports/history.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { type FillLog, type FillPiece, type FillSource, type FillStart, fillStopped } from "./fill-source.ts";

export interface BucketSourceOptions {
  readonly volumeId: string;
  /** Size of the disk before entry 1. */
  readonly beginBytes: number;
  /** What it is before entry 1; null: all zero. */
  readonly origin?: PlacementOrigin | null;
  readonly images: ArchivedImages;
  readonly log: FillLog;
  readonly signal: AbortSignal;
}

const { extentBytes } = limits;

export class FillFromBucket implements FillSource {
  readonly name: string;
  readonly workers: readonly string[];
  readonly pieceBytesMax = extentBytes;
  readonly #options: BucketSourceOptions;
  #source: PointSource | null = null;
  #lsn = 0;
  /** Extents that may hold anything but zeroes. */
  readonly #extents = new Set<number>();
  /** A read that a stop left under way writes here, not into a slab that somebody else may have by then. */
  readonly #free: Slab[] = [];

  constructor(options: BucketSourceOptions) {
    this.#options = options;
    this.name = `the bucket ${options.images.place}`;
    this.workers = Array.from({ length: limits.bucketFill.readsMax }, () => this.name);
  }

  async begin(): Promise<FillStart> {
    const { volumeId, images, log } = this.#options;
    const end = await log.end();
    const found = await this.#unlessStopped(images.newest(volumeId));
    const oldestLsn = end?.oldestLsn ?? 1;
    const isUsable =
      found !== null && end?.line === found.line && found.checksum !== 0n && found.lsn + 1 >= oldestLsn;
    if (!isUsable) {
      // A log that is gone is no empty disk: what was archived of it is all that there is.
      if (end === null && found !== null) throw logGone(this.name, found.lsn);
      if (oldestLsn > 1) throw nothingFits(this.name, found, { line: end?.line ?? "", oldestLsn });
      return await this.#beforeEntry1();
    }
    const { line, epoch, lsn, checksum } = found;
    const source = await this.#open(volumeId, lsn);
    this.#lsn = lsn;
    return { line, epoch, appliedLsn: lsn, checksum, sequence: 0, sizeBytes: source.sizeBytes };
  }

  async read(_worker: string, offset: number, length: number, slab: Slab): Promise<FillPiece> {
    const skippedBytes = this.#holeAt(offset, length);
    if (skippedBytes === length) return { skippedBytes, dataBytes: 0, begunLsn: this.#lsn };
    const from = offset + skippedBytes;
    const dataBytes = Math.min(length - skippedBytes, extentBytes - (from % extentBytes));
    const memory = this.#free.pop() ?? { bytes: Buffer.allocUnsafeSlow(extentBytes), address: 0 };
    const source = this.#source;
    if (source === null) throw fillStopped();
    const reading = source.read(memory, 0, dataBytes, from);
    await this.#unlessStopped(reading);
    memory.bytes.copy(slab.bytes, 0, 0, dataBytes);
    this.#free.push(memory);
    return { skippedBytes, dataBytes, begunLsn: this.#lsn };
  }

  async end(): Promise<void> {
    const source = this.#source;
    this.#source = null;
    await source?.close().catch(() => undefined); // nothing is read from it any more
  }

  /** A point is all zero behind its own end: a clone may be larger. */
  async #beforeEntry1(): Promise<FillStart> {
    const { beginBytes, origin = null } = this.#options;
    if (origin !== null) await this.#open(origin.volumeId, origin.lsn);
    return { line: "", epoch: 0, appliedLsn: 0, checksum: 0n, sequence: 0, sizeBytes: beginBytes };
  }

  async #open(volumeId: string, lsn: number): Promise<PointSource> {
    const opening = this.#options.images.open(volumeId, lsn);
    const source = await this.#unlessStopped(opening, async () => (await opening).close());
    this.#source = source;
    await this.#unlessStopped(this.#survey(source));
    return source;
  }

  async #survey(source: PointSource): Promise<void> {
    for await (const extent of source.extents()) {
      if (this.#options.signal.aborted) return;
      this.#extents.add(extent);
    }
  }

  /** A bucket that is away answers late: who stops the fill does not wait for it. `late`: when the work has ended after all. */
  async #unlessStopped<T>(work: Promise<T>, late: () => Promise<void> = async () => undefined): Promise<T> {
    const { signal } = this.#options;
    return await new Promise<T>((resolve, reject) => {
      const stop = (): void => {
        reject(fillStopped());
        work.then(late).catch(() => undefined); // nobody waits for it any more
      };
      if (signal.aborted) {
        stop();
        return;
      }
      signal.addEventListener("abort", stop, { once: true });
      work.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
    });
  }

  /** Bytes from the offset on that are in no extent with content. */
  #holeAt(offset: number, length: number): number {
    const end = offset + length;
    let at = offset;
    while (at < end && !this.#extents.has(Math.floor(at / extentBytes))) {
      at = (Math.floor(at / extentBytes) + 1) * extentBytes;
    }
    return Math.min(end, at) - offset;
  }
}

function logGone(name: string, lsn: number): VarveError {
  return new VarveError(
    "FillLogGone",
    "Invalid",
    `the volume has no log any more, and ${name} has it up to LSN ${lsn}`,
    { hint: "Bring it back on one machine: varve rescue --bucket URL --data DIR. Nothing was changed." },
  );
}

function nothingFits(
  name: string,
  found: { readonly line: string; readonly lsn: number } | null,
  log: { readonly line: string; readonly oldestLsn: number },
): VarveError {
  const why =
    found === null
      ? "it has nothing of this volume"
      : found.line === log.line
        ? `it ends at LSN ${found.lsn}`
        : `it has another line of the log (${found.line}, LSN ${found.lsn})`;
  return new VarveError(
    "FillBucketBehind",
    "Retry",
    `${name} can't fill the replica: ${why}, and the log begins at LSN ${log.oldestLsn}`,
    { hint: "Give this node the archivers' bucket, or another node with a replica: varve replica list." },
  );
}
