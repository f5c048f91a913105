/*
 * Deliberate bugs, one per promise that the simulator guards: each is Varve with one part replaced by one that is wrong in
 * the way such parts are wrong in the field. The mutation check (mutation-check.ts) shows that each is caught; the figures
 * are in docs/specs/simulator.md. A new invariant of the product gets its mutant here.
 */
import { type Mutant, mutant, overriding, withFiles, withWriter } from "./mutant.ts";
import { deferredImage, eraseLastRecord, mendRecords, skipEqualWrites } from "./mutant-parts.ts";

export const mutants: readonly Mutant[] = [
  mutant("writes are answered before they are durable", {
    log: (log, _, { scheduler }) =>
      withWriter(log, (writer, { listener }) => ({
        pump: (mayBlock) => {
          writer.pump(mayBlock);
          const { lastLsn } = writer.state();
          scheduler.after(0, () => listener.durable(lastLsn));
        },
      })),
  }),
  mutant("a durable write is not synced", {
    store: (store, place) =>
      withFiles(store, place, "log", (file) => ({
        writeDurable: (pieces, offset) => file.write(pieces, offset),
        writeDurableInline: (pieces, offset) => file.writeInline(pieces, offset),
      })),
  }),
  mutant("the log's sync does nothing", {
    store: (store, place) => withFiles(store, place, "log", () => ({ sync: async () => undefined })),
  }),
  mutant("FLUSH is answered at once", {
    log: (log) => withWriter(log, () => ({ sync: async () => undefined })),
  }),
  mutant("FUA is forgotten", {
    opened: (opened) =>
      overriding(opened, {
        write: (offset, source, start, length, _, done) =>
          opened.write(offset, source, start, length, false, done),
        writeReserved: (slot, offset, _, done) => opened.writeReserved(slot, offset, false, done),
        trim: (offset, length, _, done) => opened.trim(offset, length, false, done),
        zero: (offset, length, allocate, _, done) => opened.zero(offset, length, allocate, false, done),
      }),
  }),
  mutant("a failed sync is tried again on the same pages", {
    store: (store, place) =>
      withFiles(store, place, "log", (file) => ({
        sync: () => file.sync().catch(() => file.sync()),
        writeDurable: (pieces, offset) => file.writeDurable(pieces, offset).catch(() => file.sync()),
      })),
  }),
  mutant("the image is applied as soon as the log is stored", {
    log: (log) =>
      overriding(log, {
        open: (options) =>
          log.open({
            ...options,
            listener: overriding(options.listener, {
              stored: (lsn) => {
                options.listener.stored(lsn);
                options.listener.durable(lsn);
              },
            }),
          }),
      }),
  }),
  mutant("the overlay is dropped before the apply", { image: deferredImage }),
  mutant("the image's sync does nothing", {
    store: (store, place) =>
      withFiles(store, place, "image", () => ({
        sync: async () => undefined,
        syncWithTimes: async () => undefined,
      })),
  }),
  mutant("the checkpoint is written before the image's sync", {
    store: (store, place) =>
      withFiles(store, place, "image", (file) => ({
        sync: async () => {
          place.scheduler.after(50, () => void file.sync().catch(() => undefined));
        },
      })),
  }),
  mutant("the log is released before the checkpoint", {
    feed: (maker) => (handlers) =>
      maker({
        ...handlers,
        onApplied: (drafts) => {
          const lastLsn = drafts.at(-1)?.lastLsn ?? 0;
          handlers.onApplied(drafts);
          handlers.onCheckpoint(lastLsn);
        },
      }),
  }),
  mutant("new names are never synced", {
    store: (store) => overriding(store, { syncDirectory: async () => undefined }),
  }),
  mutant("recovery takes a torn record for a whole one", {
    store: (store, place) => withFiles(store, place, "log", mendRecords),
  }),
  mutant("recovery loses the last record", {
    log: (log, store, place) =>
      overriding(log, {
        open: async (options) => {
          await eraseLastRecord(store, place.logDirectory);
          return await log.open(options);
        },
      }),
  }),
  mutant("recovery builds on what it only read", {
    store: (store, place) => withFiles(store, place, "log", (file) => skipEqualWrites(file, store)),
  }),
  mutant("allocated ranges are reported as holes", {
    image: (image) =>
      overriding(image, { allocation: (offset, length) => [{ offset, length, allocated: false }] }),
  }),
  mutant("a trim is answered and forgotten", {
    opened: (opened) =>
      overriding(opened, {
        trim: (_, __, ___, done) => {
          queueMicrotask(() => done.complete(null));
          return true;
        },
      }),
  }),
  mutant("a payload is copied after its call returned", {
    opened: (opened, scheduler) =>
      overriding(opened, {
        write: (offset, source, start, length, fua, done) => {
          scheduler.after(0, () => {
            if (!opened.write(offset, source, start, length, fua, done)) return;
            opened.endOfInput(false);
          });
          return true;
        },
      }),
  }),
  mutant("one answer in a hundred is lost", {
    opened: (opened, { random }) =>
      overriding(opened, {
        write: (offset, source, start, length, fua, done) => {
          const lost = random.chance(0.01);
          const answer = lost ? { complete: () => undefined } : done;
          return opened.write(offset, source, start, length, fua, answer);
        },
      }),
  }),
  mutant("a slab is not given back", {
    feed: (maker) => (handlers) =>
      maker({
        ...handlers,
        onApplied: (drafts) => handlers.onApplied(drafts.length > 1 ? drafts.slice(0, -1) : drafts),
      }),
  }),
];
