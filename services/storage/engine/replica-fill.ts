/*
 * Fills one replica from other nodes' images: copies them while writes go on, then leaves an image with a checkpoint at the LSN where
 * the copy began, so that the log does the rest. Made by kept-replica.ts, which follows the log afterwards; answered by
 * replica-copies.ts on the other nodes. Rules and what each crash leaves: docs/specs/replica-fill.md.
 */
import { replicaCopySubject, replicaReadSubject } from "#shared/domain/cluster-subjects.ts";
import {
  checkpointPathOf,
  fillPathOf,
  partialImagePathOf,
  type VolumePaths,
} from "#shared/domain/data-layout.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { encodeCheckpoint } from "#shared/formats/checkpoint.ts";
import {
  decodeMessage,
  encodeMessage,
  isBadMessage,
  type PlaceAnswer,
  type ReplicaMessage,
} from "#shared/formats/replica-message.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { BlockFile, FileStore } from "#shared/ports/file-store.ts";
import type { LogEnd } from "#shared/ports/log-follower.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { withSlabs } from "./image-files.ts";

export interface ReplicaFillOptions {
  readonly volumeId: string;
  readonly paths: VolumePaths;
  /** Other nodes that keep a replica. */
  readonly peers: readonly string[];
  readonly store: FileStore;
  readonly clock: Clock;
  readonly bus: MessageBus;
  readonly log: { end(): Promise<Pick<LogEnd, "oldestLsn"> | null> };
  readonly roomBytes: () => number;
  /** Bytes a second at most; null: as fast as it goes. */
  readonly bytesPerSecond: number | null;
  readonly onChange: () => void;
}

interface CopyRange {
  offset: number;
  readonly end: number;
}

const answerMs = 5000;
const askMs = 1000;
const againMs = 200;
const idleMs = 10;

/** The fill that is wanted, durably: whoever opens the replica next fills it. */
export async function orderFill(store: FileStore, paths: VolumePaths): Promise<void> {
  await store.makeDirectory(paths.directory);
  const file = await store.open(fillPathOf(paths.image), { create: true, access: "buffered" });
  await file.close();
  await store.syncDirectory(paths.directory);
}

export class ReplicaFill {
  readonly #options: ReplicaFillOptions;
  readonly #signal: AbortSignal;
  readonly #returned: CopyRange[] = [];
  readonly #givers = new Set<string>();
  #start: PlaceAnswer | null = null;
  #nextOffset = 0;
  #doneBytes = 0;
  #copiedBytes = 0;
  #begunLsn = 0;
  #progressAtMs = 0;
  #paceAtMs = 0;
  #failure: VarveError | null = null;

  constructor(options: ReplicaFillOptions, signal: AbortSignal) {
    this.#options = options;
    this.#signal = signal;
  }

  get copiedBytes(): number {
    return this.#copiedBytes;
  }

  /** For the operator. */
  get progress(): string {
    if (this.#start === null) return `looks for a replica to copy: ${this.#options.peers.join(", ")}`;
    const percent = Math.floor((100 * this.#doneBytes) / this.#start.sizeBytes);
    return `${percent} % copied from ${[...this.#givers].sort().join(", ") || "nobody yet"}`;
  }

  /** Resolves, when image and checkpoint stand there, with the LSN from which on the image is exact. Rejects when it can't go on. */
  async run(): Promise<number> {
    const { store, paths } = this.#options;
    await orderFill(store, paths);
    const start = await this.#findStart();
    this.#start = start;
    const file = await store.open(fillPathOf(paths.image), { access: "buffered" });
    try {
      file.lockAsImageWriter();
      await file.truncate(0);
      await file.truncate(start.sizeBytes);
      try {
        await this.#copyAll(file, start);
      } catch (cause) {
        // Its room is wanted elsewhere until the next attempt.
        await file.truncate(0).catch(() => undefined);
        throw cause;
      }
      await file.syncWithTimes();
    } finally {
      await file.close();
    }
    await this.#install(start);
    return Math.max(this.#begunLsn, start.appliedLsn);
  }

  /** The place of the furthest peer, where log and room allow it. */
  async #findStart(): Promise<PlaceAnswer> {
    const { peers, log, roomBytes } = this.#options;
    const end = await log.end();
    const failures: string[] = [];
    const places = await Promise.all(
      peers.map(async (peer) => {
        try {
          const answer = await this.#ask(peer, { type: "where" }, askMs);
          if (answer.message.type === "place") return { peer, place: answer.message };
          failures.push(`${peer} answers with ${answer.message.type}`);
        } catch (cause) {
          failures.push(`${peer}: ${toVarveError(cause, "ask").message}`);
        }
        return null;
      }),
    );
    const found = places
      .filter((one) => one !== null)
      .filter(({ place }) => place.line !== "" && place.appliedLsn + 1 >= (end?.oldestLsn ?? 1))
      .sort((a, b) => b.place.appliedLsn - a.place.appliedLsn)[0];
    if (found === undefined) throw noSource(failures);
    const state = (await this.#ask(found.peer, { type: "ask" }, askMs)).message;
    const wantedBytes = state.type === "state" ? state.report.allocatedBytes : 0;
    if (wantedBytes > roomBytes()) throw noRoom(wantedBytes, roomBytes());
    return found.place;
  }

  async #copyAll(file: BlockFile, start: PlaceAnswer): Promise<void> {
    const { peers, store, clock } = this.#options;
    const workers = peers.flatMap((peer) => Array.from({ length: limits.replicaCopiesPerPeer }, () => peer));
    this.#progressAtMs = clock.monotonicMs();
    await withSlabs(store, workers.length, limits.replicaReadBytesMax, async (slabs) => {
      await Promise.all(
        workers.map(async (peer, index) => this.#work(peer, slabs[index] as Slab, file, start)),
      );
    });
    if (this.#failure !== null) throw this.#failure;
  }

  /** One after the other from one peer, until everything is there. Never rejects. */
  async #work(peer: string, slab: Slab, file: BlockFile, start: PlaceAnswer): Promise<void> {
    const { clock } = this.#options;
    while (this.#failure === null && this.#doneBytes < start.sizeBytes) {
      const range = this.#takeRange(start.sizeBytes);
      if (range === null) {
        // Another worker may have to give its range back.
        await this.#pause(idleMs);
        continue;
      }
      const from = range.offset;
      try {
        while (range.offset < range.end && this.#failure === null) {
          const bytes = await this.#copyPiece(peer, range, slab, file, start.appliedLsn);
          range.offset += bytes;
          this.#doneBytes += bytes;
          this.#progressAtMs = clock.monotonicMs();
        }
        await file.writeBack(from, range.end - from).catch((cause: unknown) => this.#fail(cause));
        this.#options.onChange();
      } catch (cause) {
        this.#returned.push(range);
        if (clock.monotonicMs() - this.#progressAtMs > limits.replicaFillPatienceMs) this.#fail(cause);
        await this.#pause(againMs);
      }
      if (this.#signal.aborted) this.#fail(stopped());
    }
  }

  #takeRange(sizeBytes: number): CopyRange | null {
    const returned = this.#returned.pop();
    if (returned !== undefined) return returned;
    if (this.#nextOffset >= sizeBytes) return null;
    const offset = this.#nextOffset;
    this.#nextOffset = Math.min(sizeBytes, offset + limits.replicaCopyRangeBytes);
    return { offset, end: this.#nextOffset };
  }

  /** Bytes of the range that are done by it. What this node itself can't do fails the fill; anything else is the peer's. */
  async #copyPiece(
    peer: string,
    { offset, end }: CopyRange,
    slab: Slab,
    file: BlockFile,
    leastLsn: number,
  ): Promise<number> {
    const length = end - offset;
    const { message, payload } = await this.#ask(peer, { type: "copy", offset, length, leastLsn }, answerMs);
    if (message.type !== "piece") throw badAnswer(peer, message.type);
    const { skippedBytes, appliedLsn, begunLsn } = message;
    const bytes = skippedBytes + payload.length;
    const fits = bytes >= 1 && bytes <= length && (payload.length > 0 || skippedBytes === length);
    if (!fits || appliedLsn < leastLsn || begunLsn < appliedLsn) throw badAnswer(peer, "a wrong piece");
    if (payload.length > slab.bytes.length) throw badAnswer(peer, "a piece that is too long");
    if (payload.length > 0) {
      slab.bytes.set(payload);
      try {
        await file.write([{ slab, start: 0, length: payload.length }], offset + skippedBytes);
      } catch (cause) {
        this.#fail(cause);
        throw cause;
      }
      await this.#pace(payload.length);
    }
    this.#begunLsn = Math.max(this.#begunLsn, begunLsn);
    this.#copiedBytes += payload.length;
    this.#givers.add(peer);
    return bytes;
  }

  /** See docs/specs/replica-fill.md, "After a crash": no checkpoint ever speaks of another image than its own. */
  async #install(start: PlaceAnswer): Promise<void> {
    const { store, paths, volumeId } = this.#options;
    const { directory, image } = paths;
    for (const path of [checkpointPathOf(image), partialImagePathOf(image)]) {
      if ((await store.facts(path)) !== null) await store.remove(path);
    }
    await store.syncDirectory(directory);
    await store.rename(fillPathOf(image), image);
    await store.syncDirectory(directory);
    const { line, epoch, appliedLsn, checksum: batchChecksum, sequence, sizeBytes } = start;
    const checkpoint = {
      volumeId,
      line,
      epoch,
      appliedLsn,
      batchChecksum,
      sizeBytes,
      residency: "full",
      position: sequence === 0 ? null : { sequence, offset: 0 },
      detached: null,
    } as const;
    await store.replaceWhole(checkpointPathOf(image), encodeCheckpoint(checkpoint));
  }

  async #ask(
    peer: string,
    message: ReplicaMessage,
    timeoutMs: number,
  ): Promise<{ readonly message: ReplicaMessage; readonly payload: Buffer }> {
    if (this.#signal.aborted) throw stopped();
    const { bus, volumeId } = this.#options;
    const subject = message.type === "ask" ? replicaReadSubject : replicaCopySubject;
    const decoded = decodeMessage(
      await bus.request(subject(volumeId, peer), encodeMessage(message), timeoutMs),
    );
    if (isBadMessage(decoded)) throw badAnswer(peer, decoded.detail);
    if (decoded.message.type !== "refused") return decoded;
    throw new VarveError(decoded.message.tag, "Retry", `${peer}: ${decoded.message.message}`);
  }

  #fail(cause: unknown): void {
    this.#failure ??= toVarveError(cause, "fill the replica");
  }

  async #pace(bytes: number): Promise<void> {
    const { clock, bytesPerSecond } = this.#options;
    if (bytesPerSecond === null) return;
    const nowMs = clock.monotonicMs();
    this.#paceAtMs = Math.max(this.#paceAtMs, nowMs) + (1000 * bytes) / bytesPerSecond;
    await this.#pause(this.#paceAtMs - nowMs);
  }

  async #pause(ms: number): Promise<void> {
    if (this.#signal.aborted) this.#fail(stopped());
    await new Promise<void>((resolve) => {
      const done = (): void => {
        timer.cancel();
        this.#signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = this.#options.clock.after(ms, done);
      this.#signal.addEventListener("abort", done);
    });
  }
}

function stopped(): VarveError {
  return new VarveError("FillStopped", "Retry", "the fill was stopped");
}

function badAnswer(peer: string, what: string): VarveError {
  return new VarveError("ReplicaAnswerError", "Retry", `${peer} gave an answer that is none: ${what}`);
}

function noSource(failures: readonly string[]): VarveError {
  const why = failures.length === 0 ? "none is where the log still goes on" : failures.join("; ");
  return new VarveError("FillNoSource", "Retry", `no other replica can be copied now: ${why}`, {
    hint: "It is tried again. Look at the others: varve replica list.",
  });
}

function noRoom(wantedBytes: number, roomBytes: number): VarveError {
  return new VarveError(
    "FillNoRoom",
    "Full",
    `a copy of the replica takes ${wantedBytes} bytes, and there are ${Math.floor(roomBytes)}`,
    {
      hint: "Free space on this node's pool, or move the replica: varve replica move.",
      fields: { wantedBytes, roomBytes },
    },
  );
}
