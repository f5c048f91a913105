// What the tests of fills share: other nodes with images of one log, a bucket with the disk at one LSN of it, the simulated disk of the
// node that is filled, and the image that was there before.
import { expect } from "vitest";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { SimulatedDisk } from "#shared/adapters/file-store/simulated-disk.ts";
import { MemoryMessageBus } from "#shared/adapters/message-bus/memory.ts";
import { RawFileImage } from "#shared/adapters/replica-image/raw-file.ts";
import type { Batch } from "#shared/domain/batch.ts";
import { lastLsnOf } from "#shared/domain/batch.ts";
import { replicaCopySubject, replicaReadSubject } from "#shared/domain/cluster-subjects.ts";
import { volumePaths } from "#shared/domain/data-layout.ts";
import { decodeMessage, encodeMessage, isBadMessage } from "#shared/formats/replica-message.ts";
import type { ArchivedImages, ArchivedPlace } from "#shared/ports/archived-images.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { PointSource } from "#shared/ports/history.ts";
import { FillFromBucket } from "../../../services/storage/engine/fill-from-bucket.ts";
import { FillFromPeers } from "../../../services/storage/engine/fill-from-peers.ts";
import type { FillSource } from "../../../services/storage/engine/fill-source.ts";
import { answerCopy } from "../../../services/storage/engine/replica-copies.ts";
import { ReplicaFill } from "../../../services/storage/engine/replica-fill.ts";
import type { ReplicaFollower } from "../../../services/storage/engine/replica-follower.ts";
import { ReadSlots } from "../../../services/storage/engine/replica-reads.ts";
import { SteppedClock, SteppedRandom } from "../file-store/stepped-clock.ts";
import { BatchMaker, line } from "../replica/batch-maker.ts";

export const volumeId = "5ca1ab1e00c0ffee";
export const sizeBytes = 256 * 1024;
export const paths = volumePaths("/pool", "disk0");

/** Another node: its image, and batches that it applies while it is copied. */
export class Peer {
  readonly image: RawFileImage;
  readonly #log: readonly Batch[];
  readonly #slots: ReadSlots;
  copies = 0;
  /** Answers nothing. */
  silent = false;

  constructor(image: RawFileImage, log: readonly Batch[], store: MemoryFileStore) {
    this.image = image;
    this.#log = log;
    this.#slots = new ReadSlots((bytes) => store.allocateSlab(bytes), 4);
  }

  async applyTo(lsn: number): Promise<void> {
    const { appliedLsn } = this.image.state();
    const batches = this.#log.filter((one) => one.firstLsn > appliedLsn && lastLsnOf(one) <= lsn);
    if (batches.length > 0) await this.image.apply(batches);
  }

  async applyNext(): Promise<void> {
    const { appliedLsn } = this.image.state();
    const next = this.#log.find(({ firstLsn }) => firstLsn > appliedLsn);
    if (next !== undefined) await this.image.apply([next]);
  }

  async answer(data: Uint8Array): Promise<Uint8Array | null> {
    const decoded = decodeMessage(data);
    if (this.silent || isBadMessage(decoded)) return null;
    const { image } = this;
    if (decoded.message.type === "copy") {
      this.copies += 1;
      await this.applyNext();
    }
    const follower = {
      image,
      failure: null,
      exact: true,
      reached: async (lsn: number) => {
        await this.applyTo(lsn);
        return image.state().appliedLsn >= lsn;
      },
    };
    const slots = this.#slots;
    return answerCopy(decoded.message, follower as unknown as ReplicaFollower, { slots, remoteSlots: slots });
  }

  report(): Uint8Array {
    const report = {
      node: "peer",
      host: "peer",
      condition: "following",
      reason: "",
      ...this.image.state(),
      epoch: 1,
      roomBytes: 0,
    } as const;
    return encodeMessage({ type: "state", report });
  }
}

export interface World {
  readonly clock: SteppedClock;
  readonly disk: SimulatedDisk;
  readonly bus: MemoryMessageBus;
  readonly log: readonly Batch[];
  readonly peers: Readonly<Record<string, Peer>>;
  readonly attach: (store: FileStore) => Promise<RawFileImage>;
}

export async function world(seed: number, names: readonly string[]): Promise<World> {
  const clock = new SteppedClock(seed);
  const disk = new SimulatedDisk({ random: clock.random, schedule: clock.schedule });
  const bus = new MemoryMessageBus();
  const maker = new BatchMaker(new MemoryFileStore(), new SteppedRandom(seed + 1), sizeBytes);
  const log = [maker.epoch().batch];
  for (let index = 0; index < 60; index += 1) {
    if (index === 30) log.push(maker.resize(sizeBytes / 2).batch, maker.resize(2 * sizeBytes).batch);
    log.push(maker.random().batch);
  }
  const peers: Record<string, Peer> = {};
  for (const name of names) {
    const store = new MemoryFileStore();
    const options = { store, directory: "/v", volumeId };
    await store.makeDirectory("/v");
    await RawFileImage.create({ ...options, sizeBytes });
    const peer = new Peer(await RawFileImage.attach(options), log, store);
    await peer.applyTo(60 + clock.random.integer(0, 20));
    peers[name] = peer;
    bus.serve(replicaCopySubject(volumeId, name), async (data) => peer.answer(data));
    bus.serve(replicaReadSubject(volumeId, name), async () => peer.report());
  }
  const attach = (store: FileStore): Promise<RawFileImage> =>
    RawFileImage.attach({ store, directory: paths.directory, volumeId });
  return { clock, disk, bus, log, peers, attach };
}

/** What the others have is kept. */
export const oldestLsn = 40;

/** What fills told the operator; a test empties it. */
export const notes: string[] = [];

export interface FillWish {
  readonly signal?: AbortSignal;
  readonly archive?: MemoryArchive;
  /** Without the other nodes. */
  readonly alone?: boolean;
  readonly roomBytes?: number;
  readonly log?: { readonly oldestLsn: number; readonly line: string } | null;
}

export function fillOf(
  { clock, bus, peers }: World,
  store: FileStore,
  {
    archive,
    alone = false,
    roomBytes = 2 ** 30,
    log = { oldestLsn, line },
    signal = new AbortController().signal,
  }: FillWish = {},
): ReplicaFill {
  const common = { volumeId, log: { end: async () => log }, signal };
  const sources: FillSource[] = [];
  if (archive !== undefined)
    sources.push(new FillFromBucket({ ...common, beginBytes: sizeBytes, images: archive }));
  if (!alone)
    sources.push(
      new FillFromPeers({ ...common, peers: Object.keys(peers), bus, roomBytes: () => roomBytes }),
    );
  const options = { volumeId, paths, sources, store, clock, roomBytes: () => roomBytes };
  return new ReplicaFill(
    { ...options, bytesPerSecond: null, onChange: () => undefined, onNote: (text) => notes.push(text) },
    signal,
  );
}

/** A bucket that has the disk as it is after one of the log's batches. */
export class MemoryArchive implements ArchivedImages {
  readonly place = "memory://bucket";
  readonly #image: RawFileImage;
  found: ArchivedPlace | null;
  reads = 0;
  open = async (): Promise<PointSource> => this.#point();
  point: (volumeId?: string, lsn?: number) => Promise<PointSource> = async () => this.open();
  /** Called before each read; what it throws is the read's failure. */
  beforeRead: () => void | Promise<void> = () => undefined;

  private constructor(image: RawFileImage, last: Batch) {
    this.#image = image;
    this.found = { line, epoch: 1, lsn: lastLsnOf(last), checksum: last.checksum, pins: [] };
  }

  /** At the first batch that ends at `lsn` or later. */
  static async at(log: readonly Batch[], lsn: number, beginBytes = sizeBytes): Promise<MemoryArchive> {
    const count = log.findIndex((one) => lastLsnOf(one) >= lsn) + 1;
    const store = new MemoryFileStore();
    const options = { store, directory: "/v", volumeId };
    await store.makeDirectory("/v");
    await RawFileImage.create({ ...options, sizeBytes: beginBytes });
    const image = await RawFileImage.attach(options);
    await image.apply(log.slice(0, count));
    return new MemoryArchive(image, log[count - 1] as Batch);
  }

  async newest(): Promise<ArchivedPlace | null> {
    return this.found;
  }

  #point(): PointSource {
    const image = this.#image;
    const { sizeBytes: size, appliedLsn: lsn } = image.state();
    return {
      volumeId,
      lsn,
      sizeBytes: size,
      read: async (slab, start, length, offset) => {
        this.reads += 1;
        await this.beforeRead();
        await image.read(slab, start, length, offset);
      },
      allocation: (offset, length, runsMax) => image.allocation(offset, length, runsMax),
      extents: async function* () {
        yield 0;
      },
      close: async () => undefined,
    };
  }
}

/** The old image, which follows no more: whole up to its checkpoint. */
export async function makeOld(
  { clock, log, attach }: World,
  store: FileStore,
): Promise<{ readonly lsn: number; readonly bytes: Buffer }> {
  await clock.until(store.makeDirectory(paths.directory));
  await clock.until(RawFileImage.create({ store, directory: paths.directory, volumeId, sizeBytes }));
  const old = await clock.until(attach(store));
  await clock.until(old.apply(log.slice(0, 5)));
  await clock.until(old.detach());
  const bytes = (await clock.until(store.readWhole(paths.image))) ?? Buffer.alloc(0);
  return { lsn: old.state().appliedLsn, bytes };
}

export async function contentOf(image: RawFileImage, clock: SteppedClock | null): Promise<Buffer> {
  const { sizeBytes: length } = image.state();
  const slab = new MemoryFileStore().allocateSlab(length);
  const reading = image.read(slab, 0, length, 0);
  await (clock === null ? reading : clock.until(reading));
  return Buffer.from(slab.bytes.subarray(0, length));
}

/** Applies the rest of the log to both; they are the same disk. */
export async function expectSame({ clock, log, peers }: World, filled: RawFileImage): Promise<void> {
  const peer = Object.values(peers)[0] as Peer;
  const end = lastLsnOf(log.at(-1) as Batch);
  await peer.applyTo(end);
  const { appliedLsn } = filled.state();
  await clock.until(filled.apply(log.filter(({ firstLsn }) => firstLsn > appliedLsn)));
  expect(filled.state().appliedLsn).toBe(end);
  expect((await contentOf(filled, clock)).equals(await contentOf(peer.image, null))).toBe(true);
}
