/*
 * Wires one simulated process as services/gateway/layer.ts wires the real one: slab pool, embedded log, raw image, image
 * applier, volume session; all on the world's disk and clock, each port passed through the world's mutant.
 * Called by life.ts and run-seed.ts.
 */
import { RawFileImage } from "#shared/adapters/replica-image/raw-file.ts";
import { EmbeddedFileLog } from "#shared/adapters/write-log/embedded-file.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import { SlabPool, slabClassBytes } from "#shared/memory/slab-pool.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { Durability } from "#shared/ports/write-log.ts";
import { VolumeSession } from "../../services/gateway/engine/volume-session.ts";
import { ImageApplier } from "../../services/storage/engine/image-applier.ts";
import { SpaceReserve } from "../../services/storage/engine/space-reserve.ts";
import { dataDirectory, type World } from "./world.ts";

export interface OpenVolume {
  readonly session: VolumeSession;
  readonly pool: SlabPool;
  readonly reserve: SpaceReserve;
  readonly store: FileStore;
  /** Payload memory that other volumes of the process hold. */
  readonly ballastBytes: number;
}

export async function createVolume(world: World): Promise<void> {
  const store = world.newStore();
  await store.makeDirectory(world.paths.directory);
  await RawFileImage.create({
    store,
    directory: world.paths.directory,
    volumeId: world.volumeId,
    sizeBytes: world.plan.sizeBytes,
  });
}

export async function openVolume(
  world: World,
  durability: Durability,
  listener: { halted(error: VarveError): void },
): Promise<OpenVolume> {
  const { mutant, scheduler, paths, plan } = world;
  const { clock } = scheduler;
  const place = { scheduler, logDirectory: paths.log, imagePath: paths.image };
  const store = mutant.store(world.newStore(), place);
  const largest = slabClassBytes.at(-1) ?? 0;
  const pool = new SlabPool(store, clock, Math.max(largest, plan.memoryBytes));
  const ballastBytes = takeBallast(pool, Math.max(largest, plan.memoryBytes) - plan.memoryBytes);
  const reserve = new SpaceReserve({ store, clock, path: dataDirectory });
  await reserve.start();
  const image = mutant.image(
    await RawFileImage.attach({ store, directory: paths.directory, volumeId: world.volumeId }),
    place,
  );
  const log = new EmbeddedFileLog({
    store,
    clock,
    random: world.random.fork(),
    directory: paths.log,
    volumeId: world.volumeId,
    options: plan.log,
  });
  const session = await VolumeSession.open({
    name: "disk0",
    durability,
    log: mutant.log(log, store, place),
    image,
    pool,
    admission: reserve,
    feed: mutant.feed((handlers) => {
      const makeRoom = (mayWait: () => boolean): Promise<boolean> => reserve.makeRoom(mayWait);
      return new ImageApplier({ image, clock, makeRoom }, handlers);
    }),
    writer: "simulated 1",
    onHalted: (error) => listener.halted(error),
    replayBytesPerCheckpoint: 16 * 1024,
  });
  return { session, pool, reserve, store, ballastBytes };
}

function takeBallast(pool: SlabPool, bytes: number): number {
  for (const classBytes of slabClassBytes.toReversed()) {
    while (pool.statistics().lentBytes + classBytes <= bytes) pool.acquire(classBytes);
  }
  return pool.statistics().lentBytes;
}
