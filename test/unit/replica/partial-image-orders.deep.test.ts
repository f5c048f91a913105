// Evict, punch, refill, apply, read and rollback of the same extents in every order of their steps, and a crash at each of
// them: enumerated, not drawn. The disk has two extents, so that thousands of orders take seconds.
import { expect, test } from "vitest";
import { SimulatedDisk } from "#shared/adapters/file-store/simulated-disk.ts";
import type { RawFileImage } from "#shared/adapters/replica-image/raw-file.ts";
import { FoldedDisk } from "#shared/domain/fold.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import { SteppedRandom } from "../file-store/stepped-clock.ts";
import { inEveryOrder, type OrderedRun, Steps } from "./every-order.ts";
import { extentBytes, PartialWorld } from "./partial-world.ts";

const sizeBytes = extentBytes + 65_536;
/** Where anything is written or ever was, with its surroundings: comparing no more makes an order cost milliseconds. */
const looks: readonly (readonly [start: number, end: number])[] = [
  [0, 262_144],
  [950_000, 1_100_000],
  [extentBytes - 65_536, sizeBytes],
];
const pattern: readonly (readonly [offset: number, length: number, value: number])[] = [
  [3, 60_000, 11],
  [90_000, 50_000, 12],
  [999_000, 10_000, 13],
  [extentBytes - 5000, 30_000, 14],
];

function parentDisk(): FoldedDisk {
  const disk = new FoldedDisk(sizeBytes);
  for (const [offset, length, value] of pattern) disk.write(offset, Buffer.alloc(length, value));
  return disk;
}

interface Scene {
  /** A step of its own: what follows may begin at any time. */
  readonly later: () => Promise<void>;
  readonly world: PartialWorld;
  readonly image: RawFileImage;
  readonly store: FileStore;
  /** LSN of a base that holds all that was applied before the work. */
  readonly base: number;
}

interface Play {
  /** Whether the extents are local when the work begins. */
  readonly local: boolean;
  readonly crashes: boolean;
  readonly work: (scene: Scene) => Promise<unknown>;
}

function prepare({ local, crashes, work }: Play): (run: number) => Promise<OrderedRun> {
  return async (run) => {
    const steps = new Steps();
    const random = new SteppedRandom(run + 1);
    const disk = new SimulatedDisk({ random, schedule: steps.schedule });
    let store = disk.store();
    const begin = local ? new FoldedDisk(sizeBytes) : parentDisk();
    const world = new PartialWorld(store, new SteppedRandom(5), begin, {
      delay: () => new Promise((resolve) => steps.schedule(resolve)),
    });
    await steps.inOrder(world.create(store, !local));
    let image = await steps.inOrder(world.attach(store));
    const first = [world.maker.epoch(), world.maker.write(70_000, Buffer.alloc(9000, 3))];
    if (local) {
      for (const [offset, length, value] of pattern) {
        first.push(world.maker.write(offset, Buffer.alloc(length, value)));
      }
    }
    await steps.inOrder(image.apply(first.map((one) => world.record(one).batch)));
    await steps.inOrder(image.checkpoint());
    const later = (): Promise<void> => new Promise((resolve) => steps.schedule(resolve));
    const scene = { later, world, image, store, base: world.disk.appliedLsn };
    return {
      steps,
      work: () => work(scene),
      crash: crashes
        ? () => {
            if (run % 3 === 0) disk.kill();
            else disk.crash();
          }
        : null,
      check: async (crashed) => {
        if (crashed) {
          store = disk.store();
          image = await steps.inOrder(world.attach(store));
          const rest = world.made.filter(({ draft }) => draft.lastLsn > image.state().appliedLsn);
          if (rest.length > 0) await steps.inOrder(image.apply(rest.map(({ batch }) => batch)));
        }
        await expectDisk(steps, image, store, world.disk);
        if (run % 8 !== 0) return;
        await steps.inOrder(image.detach());
        image = await steps.inOrder(world.attach(store));
        await expectDisk(steps, image, store, world.disk);
        await steps.inOrder(image.extents.cache(0, sizeBytes));
        await expectDisk(steps, image, store, world.disk);
      },
    };
  };
}

async function expectDisk(
  steps: Steps,
  image: RawFileImage,
  store: FileStore,
  disk: FoldedDisk,
): Promise<void> {
  expect(image.state().sizeBytes).toBe(disk.sizeBytes);
  const slab = store.allocateSlab(extentBytes);
  for (const [start, end] of looks) {
    const length = Math.min(end, disk.sizeBytes) - start;
    if (length <= 0) continue;
    await steps.inOrder(image.read(slab, 0, length, start));
    expect(Buffer.compare(slab.bytes.subarray(0, length), disk.read(start, length))).toBe(0);
  }
}

/** Extent 0 is read, while writes of another byte range may or may not be there: the bytes of [0, 60000) are constant. */
async function readConstant({ image, store, world }: Scene): Promise<void> {
  const expected = Buffer.from(world.disk.read(0, 60_000));
  const slab = store.allocateSlab(61_440);
  await image.read(slab, 0, 60_000, 0);
  expect(slab.bytes.subarray(0, 60_000).equals(expected)).toBe(true);
}

const write = (scene: Scene, offset: number, length: number, value: number): Promise<void> =>
  scene.image.apply([scene.world.record(scene.world.maker.write(offset, Buffer.alloc(length, value))).draft]);

const evictAll = ({ image, world, base }: Scene): Promise<number> =>
  image.extents.evict({ point: world.own(base), baseLsn: base, extents: [0, 1] });

const minutesMs = 120_000;

test(
  "evict and a read that is under way",
  async () => {
    const orders = await inEveryOrder(
      prepare({
        local: true,
        crashes: false,
        work: (scene) => Promise.all([evictAll(scene), scene.later().then(() => readConstant(scene))]),
      }),
    );
    expect(orders).toBeGreaterThan(30);
  },
  minutesMs,
);

test(
  "evict and punch against applies, a crash at each step",
  async () => {
    const orders = await inEveryOrder(
      prepare({
        local: true,
        crashes: true,
        work: (scene) =>
          Promise.all([
            evictAll(scene),
            scene.later().then(async () => {
              await write(scene, 100_001, 5000, 1);
              await write(scene, 100_500, 100, 2);
            }),
          ]),
      }),
    );
    expect(orders).toBeGreaterThan(100);
  },
  minutesMs,
);

test(
  "evict, punch, refill and apply, and a crash at each step",
  async () => {
    const orders = await inEveryOrder(
      prepare({
        local: true,
        crashes: true,
        work: (scene) =>
          Promise.all([
            evictAll(scene).then(() => scene.image.extents.fill(0)),
            scene.later().then(() => write(scene, 100_001, 5000, 1)),
          ]),
      }),
    );
    expect(orders).toBeGreaterThan(100);
  },
  minutesMs,
);

test(
  "a fill, writes and a read of a remote extent, in every order",
  async () => {
    const orders = await inEveryOrder(
      prepare({
        local: false,
        crashes: false,
        work: (scene) =>
          Promise.all([
            scene.image.extents.fill(0),
            scene.later().then(() => write(scene, 100_001, 5000, 1)),
            scene.later().then(() => readConstant(scene)),
          ]),
      }),
    );
    expect(orders).toBeGreaterThan(100);
  },
  minutesMs,
);

test(
  "a fill and a write of the same extent, a crash at each step",
  async () => {
    const orders = await inEveryOrder(
      prepare({
        local: false,
        crashes: true,
        work: (scene) =>
          Promise.all([
            scene.image.extents.fill(0).then(() => scene.image.checkpoint()),
            scene.later().then(() => write(scene, 100_001, 5000, 1)),
          ]),
      }),
    );
    expect(orders).toBeGreaterThan(50);
  },
  minutesMs,
);

const rollBack = async (scene: Scene): Promise<void> => {
  const back = scene.world.record(scene.world.maker.rebase(1, sizeBytes));
  await scene.image.apply([back.batch]);
  await scene.image.checkpoint();
};

test(
  "a fill under way, a rollback and its checkpoint, in every order",
  async () => {
    const orders = await inEveryOrder(
      prepare({
        local: false,
        crashes: false,
        work: (scene) =>
          Promise.all([scene.image.extents.fill(0), scene.later().then(() => rollBack(scene))]),
      }),
    );
    expect(orders).toBeGreaterThan(50);
  },
  minutesMs,
);

test(
  "a rollback of local extents, its checkpoint and a write behind it, a crash at each step",
  async () => {
    const orders = await inEveryOrder(
      prepare({
        local: true,
        crashes: true,
        work: (scene) => Promise.all([rollBack(scene), scene.later().then(() => scene.image.checkpoint())]),
      }),
    );
    expect(orders).toBeGreaterThan(20);
  },
  minutesMs,
);

test(
  "evict, shrink and grow across the extent, a crash at each step",
  async () => {
    const orders = await inEveryOrder(
      prepare({
        local: true,
        crashes: true,
        work: (scene) =>
          Promise.all([
            evictAll(scene),
            scene.later().then(async () => {
              for (const size of [1_000_448, sizeBytes]) {
                await scene.image.apply([scene.world.record(scene.world.maker.resize(size)).batch]);
              }
            }),
          ]),
      }),
    );
    expect(orders).toBeGreaterThan(50);
  },
  minutesMs,
);

test(
  "evict against a rollback, its checkpoint and a write behind it, a crash at each step",
  async () => {
    const orders = await inEveryOrder(
      prepare({
        local: true,
        crashes: true,
        work: (scene) =>
          Promise.all([
            evictAll(scene),
            scene
              .later()
              .then(() => rollBack(scene))
              .then(() => write(scene, 100_001, 5000, 1)),
          ]),
      }),
    );
    expect(orders).toBeGreaterThan(50);
  },
  minutesMs,
);
