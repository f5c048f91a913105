/*
 * Deliberate bugs of the past, one per promise that the simulator guards there: each is Varve with one part replaced by one that is
 * wrong in the way such parts are wrong in the field. mutation-check.ts shows that each is caught; the figures are in
 * docs/specs/simulator.md.
 */
import { VarveError } from "#shared/domain/errors.ts";
import type { ArchiveSubject, BaseImage } from "#shared/ports/archive.ts";
import type { BlockFile } from "#shared/ports/file-store.ts";
import type { PointSource } from "#shared/ports/history.ts";
import type { ReplicaExtents } from "#shared/ports/replica-residency.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { overriding } from "../mutant.ts";
import { type PastMutant, type PastMutantPlace, pastMutant } from "./past-mutant.ts";

const extentBytes = 4 << 20;

export const pastMutants: readonly PastMutant[] = [
  pastMutant("log is released as soon as it is durable", {
    archiver: withSubject((subject) => ({
      log: overriding(subject.log, {
        follow: (listener) =>
          subject.log.follow((batch) => {
            listener(batch);
            const { lastLsn } = batch;
            queueMicrotask(() => subject.onHeld(lastLsn));
          }),
      }),
    })),
  }),
  pastMutant("uploaded counts as held", { settleMs: 0 }),
  pastMutant("a base's e is too small", {
    archiver: withSubject(({ image }) => ({ image: withEarlyEnd(image) })),
  }),
  pastMutant("a manifest is published before its segments are stored", {
    objects: (objects, { scheduler }) =>
      overriding(objects, {
        put: async (key, content, options) => {
          if (!key.endsWith(".seg")) return await objects.put(key, content, options);
          const copy = Buffer.from(content);
          scheduler.after(500, () => void objects.put(key, copy).catch(() => undefined));
          return "stored";
        },
      }),
  }),
  pastMutant("a chunk is taken for stored when it was only sent", {
    objects: (objects, { scheduler }) =>
      overriding(objects, {
        put: async (key, content, options) => {
          if (!key.startsWith("chunks/")) return await objects.put(key, content, options);
          const copy = Buffer.from(content);
          scheduler.after(5_000, () => void objects.put(key, copy).catch(() => undefined));
          return "stored";
        },
      }),
  }),
  pastMutant("an object that found no room counts as stored", {
    objects: (objects) =>
      overriding(objects, {
        put: async (key, content, options) => {
          try {
            return await objects.put(key, content, options);
          } catch (cause) {
            if (cause instanceof VarveError && cause.kind === "Full") return "stored";
            throw cause;
          }
        },
      }),
  }),
  pastMutant("a fill overwrites newer bytes", {
    image: (image, sources, place) => {
      const { extents } = image;
      if (extents === undefined) return image;
      return overriding(image, {
        extents: overriding(extents, {
          fill: async (extent) => {
            const { path, points } = extents.residency();
            const bytes = await extents.fill(extent);
            const [point] = points;
            if (bytes === 0 || point === undefined) return bytes;
            const source = await sources.open(point);
            await copyExtent(place, path, source, extent, image.state().sizeBytes);
            await source.close();
            return bytes;
          },
        }),
      });
    },
  }),
  pastMutant("an extent is evicted before the checkpoint says so", {
    image: (image, _, place) => {
      const { extents } = image;
      if (extents === undefined) return image;
      const evict: ReplicaExtents["evict"] = async (request) => {
        const { path } = extents.residency();
        const file = await place.store.open(path, { access: "buffered" });
        for (const extent of request.extents) {
          const offset = extent * extentBytes;
          const length = Math.min(extentBytes, image.state().sizeBytes - offset);
          if (extents.isLocal(extent) && length > 0) await punch(file, offset, length);
        }
        await file.sync();
        await file.close();
        await new Promise<void>((resolve) => {
          place.scheduler.after(200, resolve);
        });
        return await extents.evict(request);
      };
      return overriding(image, { extents: overriding(extents, { evict }) });
    },
  }),
  pastMutant("a reader forgets rollbacks", {
    histories: (histories) =>
      overriding(histories, {
        serve: (subject) =>
          histories.serve(
            overriding(subject, {
              manifest: async () => {
                const manifest = await subject.manifest();
                return manifest === null ? null : { ...manifest, rebases: [] };
              },
            }),
          ),
      }),
  }),
  pastMutant("the collector ignores pins and points in use", {
    forgetsPoints: true,
    archiver: withSubject((subject) => ({
      facts: () => ({ ...subject.facts(), pins: [] }),
    })),
  }),
  pastMutant("a deleted volume's files go before the bucket holds it", {
    archiver: (archiver) =>
      overriding(archiver, {
        open: async (subject) => overriding(await archiver.open(subject), { heldInMs: () => 0 }),
      }),
  }),
  pastMutant("a scrub repairs nothing and says that it did", {
    kept: (volume) => overriding(volume, { refill: async () => true }),
  }),
  pastMutant("an undelete reads its extents from an older point", {
    plan: (plan) => {
      const { replica } = plan;
      if (replica === null) return plan;
      const { volumeId, lsn } = replica.point;
      return { ...plan, replica: { ...replica, point: { volumeId, lsn: Math.max(1, lsn - 5) } } };
    },
  }),
];

function withSubject(change: (subject: ArchiveSubject) => Partial<ArchiveSubject>): PastMutant["archiver"] {
  return (archiver) =>
    overriding(archiver, {
      open: async (subject) => await archiver.open(overriding(subject, change(subject))),
    });
}

/** Says at the end of a base how far the image was at its beginning. */
function withEarlyEnd(image: BaseImage): BaseImage {
  let startLsn = 0;
  let wasRead = false;
  return overriding(image, {
    read: async (slab, start, length, offset) => {
      wasRead = true;
      await image.read(slab, start, length, offset);
    },
    state: () => {
      const state = image.state();
      if (!wasRead) startLsn = state.appliedLsn;
      wasRead = false;
      return { ...state, begunLsn: startLsn };
    },
  });
}

async function copyExtent(
  { store }: PastMutantPlace,
  path: string,
  source: PointSource,
  extent: number,
  sizeBytes: number,
): Promise<void> {
  const offset = extent * extentBytes;
  const length = Math.min(extentBytes, sizeBytes - offset);
  if (length <= 0) return;
  const slab: Slab = { bytes: Buffer.alloc(length), address: 0 };
  await source.read(slab, 0, length, offset);
  const file = await store.open(path, { access: "buffered" });
  await file.write([{ slab, start: 0, length }], offset);
  await file.close();
}

async function punch(file: BlockFile, offset: number, length: number): Promise<void> {
  await file.applyAll([{ kind: "punch", offset, length }]);
}
