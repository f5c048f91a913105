// A replica that is copied from others while they go on applying: whatever the order, a crash or a kill anywhere, at the end it is the
// fold of the log, and the image that was there before stays usable until the copy is whole. Peers are real images on a memory store;
// the filled one is on the simulated disk.
import { describe, expect, test } from "vitest";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { SimulatedDisk } from "#shared/adapters/file-store/simulated-disk.ts";
import { MemoryMessageBus } from "#shared/adapters/message-bus/memory.ts";
import { RawFileImage } from "#shared/adapters/replica-image/raw-file.ts";
import type { Batch } from "#shared/domain/batch.ts";
import { lastLsnOf } from "#shared/domain/batch.ts";
import { replicaCopySubject, replicaReadSubject } from "#shared/domain/cluster-subjects.ts";
import { checkpointPathOf, fillPathOf, volumePaths } from "#shared/domain/data-layout.ts";
import { limits } from "#shared/domain/limits.ts";
import { decodeMessage, encodeMessage, isBadMessage } from "#shared/formats/replica-message.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import { answerCopy } from "../../../services/storage/engine/replica-copies.ts";
import { ReplicaFill } from "../../../services/storage/engine/replica-fill.ts";
import type { ReplicaFollower } from "../../../services/storage/engine/replica-follower.ts";
import { ReadSlots } from "../../../services/storage/engine/replica-reads.ts";
import { SteppedClock, SteppedRandom } from "../file-store/stepped-clock.ts";
import { BatchMaker } from "../replica/batch-maker.ts";

const volumeId = "5ca1ab1e00c0ffee";
const sizeBytes = 256 * 1024;
const paths = volumePaths("/pool", "disk0");

/** Another node: its image, and batches that it applies while it is copied. */
class Peer {
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
    return answerCopy(decoded.message, follower as unknown as ReplicaFollower, this.#slots);
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

interface World {
  readonly clock: SteppedClock;
  readonly disk: SimulatedDisk;
  readonly bus: MemoryMessageBus;
  readonly log: readonly Batch[];
  readonly peers: Readonly<Record<string, Peer>>;
  readonly attach: (store: FileStore) => Promise<RawFileImage>;
}

async function world(seed: number, names: readonly string[]): Promise<World> {
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

function fillOf({ clock, bus, peers }: World, store: FileStore, roomBytes = 2 ** 30): ReplicaFill {
  const oldestLsn = 40; // what the others have is kept
  return new ReplicaFill(
    {
      volumeId,
      paths,
      peers: Object.keys(peers),
      store,
      clock,
      bus,
      log: { end: async () => ({ oldestLsn }) },
      roomBytes: () => roomBytes,
      bytesPerSecond: null,
      onChange: () => undefined,
    },
    new AbortController().signal,
  );
}

/** The old image, which follows no more: whole up to its checkpoint. */
async function makeOld(
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

async function contentOf(image: RawFileImage, clock: SteppedClock | null): Promise<Buffer> {
  const { sizeBytes: length } = image.state();
  const slab = new MemoryFileStore().allocateSlab(length);
  const reading = image.read(slab, 0, length, 0);
  await (clock === null ? reading : clock.until(reading));
  return Buffer.from(slab.bytes.subarray(0, length));
}

/** Applies the rest of the log to both; they are the same disk. */
async function expectSame({ clock, log, peers }: World, filled: RawFileImage): Promise<void> {
  const peer = Object.values(peers)[0] as Peer;
  const end = lastLsnOf(log.at(-1) as Batch);
  await peer.applyTo(end);
  const { appliedLsn } = filled.state();
  await clock.until(filled.apply(log.filter(({ firstLsn }) => firstLsn > appliedLsn)));
  expect(filled.state().appliedLsn).toBe(end);
  expect((await contentOf(filled, clock)).equals(await contentOf(peer.image, null))).toBe(true);
}

/** The bus has time limits of its own: until they have passed nothing is left to happen. */
async function nobody(made: World, store: FileStore): Promise<number> {
  const running = fillOf(made, store).run();
  running.catch(() => undefined);
  await made.clock.run(100);
  await new Promise((resolve) => setTimeout(resolve, 1200));
  return await made.clock.until(running);
}

describe("a fill", () => {
  test("from several that go on applying gives what they have, its holes included", async () => {
    for (let seed = 0; seed < 12; seed += 1) {
      const made = await world(seed, ["a", "b"]);
      const store = made.disk.store();
      await makeOld(made, store);
      const exactLsn = await made.clock.until(fillOf(made, store).run());
      const filled = await made.clock.until(made.attach(store));
      expect(filled.state().appliedLsn).toBeGreaterThanOrEqual(39);
      expect(exactLsn).toBeGreaterThanOrEqual(filled.state().appliedLsn);
      expect(await made.clock.until(store.facts(fillPathOf(paths.image)))).toBeNull();
      await expectSame(made, filled);
    }
  });

  test("an empty disk is copied without a byte", async () => {
    const made = await world(1, ["a"]);
    const { a } = made.peers as { a: Peer };
    const zeroes = { kind: "trim", offset: 0, length: 2 * sizeBytes } as const;
    const last = made.log.at(-1) as Batch;
    await a.applyTo(lastLsnOf(last));
    await a.image.apply([
      {
        ...last,
        firstLsn: lastLsnOf(last) + 1,
        previousChecksum: last.checksum,
        checksum: 1n,
        entries: [zeroes],
        payload: new Uint8Array(),
      },
    ]);
    const store = made.disk.store();
    const fill = fillOf(made, store);
    await made.clock.until(fill.run());
    expect(fill.copiedBytes).toBe(0);
    expect((await made.clock.until(store.facts(paths.image)))?.allocatedBytes).toBe(0);
  });

  test("killed or crashed anywhere: the old image stays until the copy is whole, and the next attempt ends well", async () => {
    const found = { old: 0, none: 0, filled: 0 };
    for (let seed = 0; seed < 60; seed += 1) {
      const made = await world(seed, ["a", "b"]);
      const { clock, disk } = made;
      const first = disk.store();
      const old = await makeOld(made, first);
      void fillOf(made, first)
        .run()
        .catch(() => undefined);
      await clock.run(clock.random.integer(1, 90));
      if (seed % 2 === 0) disk.kill();
      else disk.crash();
      clock.reset();
      const store = disk.store();
      const bytes = await clock.until(store.readWhole(checkpointPathOf(paths.image)));
      const wanted = (await clock.until(store.facts(fillPathOf(paths.image)))) !== null;
      if (bytes !== null) {
        const image = await clock.until(made.attach(store));
        if (image.state().appliedLsn === old.lsn) {
          found.old += 1;
          expect((await contentOf(image, clock)).equals(old.bytes)).toBe(true);
        } else {
          found.filled += 1;
          expect(wanted).toBe(false);
          await expectSame(made, image);
        }
        await clock.until(image.abandon());
      } else found.none += 1;
      // Begun again, from the start.
      await clock.until(fillOf(made, store).run());
      await expectSame(made, await clock.until(made.attach(store)));
    }
    expect(Math.min(...Object.values(found))).toBeGreaterThan(0);
  });

  test("a peer that falls silent is done without; with none at all nothing is begun and nothing lost", async () => {
    const made = await world(3, ["a", "b"]);
    const { a, b } = made.peers as { a: Peer; b: Peer };
    const store = made.disk.store();
    const old = await makeOld(made, store);
    b.silent = true;
    a.silent = true;
    made.bus.cut = (subject) => subject.endsWith(".copy");
    await expect(nobody(made, store)).rejects.toMatchObject({ _tag: "FillNoSource", kind: "Retry" });
    made.bus.cut = () => false;
    expect((await made.clock.until(store.readWhole(paths.image)))?.equals(old.bytes)).toBe(true);
    a.silent = false;
    made.bus.serve(replicaCopySubject(volumeId, "b"), async () => Buffer.from("nonsense"));
    await made.clock.until(fillOf(made, store).run());
    await expectSame(made, await made.clock.until(made.attach(store)));
  });

  test("where room is short the old image stays as it is, and the copy takes none", async () => {
    const made = await world(4, ["a"]);
    const store = made.disk.store();
    const old = await makeOld(made, store);
    // What a replica takes is known as of its checkpoint.
    await (made.peers as { a: Peer }).a.image.checkpoint();
    await expect(made.clock.until(fillOf(made, store, 4096).run())).rejects.toMatchObject({
      _tag: "FillNoRoom",
      kind: "Full",
    });
    expect((await made.clock.until(store.readWhole(paths.image)))?.equals(old.bytes)).toBe(true);
    expect((await made.clock.until(store.facts(fillPathOf(paths.image))))?.sizeBytes).toBe(0);
  });

  test("a piece that is older than the start, or of the wrong length, is not taken", async () => {
    const made = await world(5, ["a"]);
    const store = made.disk.store();
    const { a } = made.peers as { a: Peer };
    let wrong = 3;
    made.bus.serve(replicaCopySubject(volumeId, "a"), async (data) => {
      const answer = await a.answer(data);
      const decoded = answer === null ? null : decodeMessage(answer);
      if (decoded === null || isBadMessage(decoded) || decoded.message.type !== "piece" || wrong === 0)
        return answer;
      wrong -= 1;
      const { message } = decoded;
      if (wrong === 2) return encodeMessage({ ...message, appliedLsn: 3 });
      if (wrong === 1) return encodeMessage({ ...message, skippedBytes: limits.replicaCopyRangeBytes + 1 });
      return encodeMessage({ ...message, begunLsn: 0 });
    });
    await made.clock.until(fillOf(made, store).run());
    expect(wrong).toBe(0);
    await expectSame(made, await made.clock.until(made.attach(store)));
  });
});
