/*
 * The seams at which a deliberate bug can be put between Varve's parts: each port that a life wires passes through here.
 * `faithful` changes nothing. wiring.ts calls it while it opens a volume; mutants.ts holds the bugs.
 */
import type { BlockExport } from "#shared/ports/block-export.ts";
import type { BlockFile, FileStore } from "#shared/ports/file-store.ts";
import type { ReplicaFeed, ReplicaFeedHandlers } from "#shared/ports/replica-feed.ts";
import type { ReplicaImage } from "#shared/ports/replica-image.ts";
import type { LogOpenOptions, LogWriter, WriteLog } from "#shared/ports/write-log.ts";
import type { PendingBatch } from "../../services/gateway/engine/pending-batch.ts";
import type { Scheduler } from "./scheduler.ts";

export type FeedMaker = (handlers: ReplicaFeedHandlers<PendingBatch>) => ReplicaFeed<PendingBatch>;

/** What a bug may need to know of the process that it lives in. */
export interface MutantPlace {
  readonly scheduler: Scheduler;
  readonly logDirectory: string;
  readonly imagePath: string;
}

export interface Mutant {
  readonly name: string;
  store(store: FileStore, place: MutantPlace): FileStore;
  log(log: WriteLog, store: FileStore, place: MutantPlace): WriteLog;
  image(image: ReplicaImage, place: MutantPlace): ReplicaImage;
  feed(maker: FeedMaker): FeedMaker;
  opened(opened: BlockExport, scheduler: Scheduler): BlockExport;
}

export const faithful: Mutant = {
  name: "faithful",
  store: (store) => store,
  log: (log) => log,
  image: (image) => image,
  feed: (maker) => maker,
  opened: (opened) => opened,
};

export function mutant(name: string, bug: Partial<Omit<Mutant, "name">>): Mutant {
  return { ...faithful, ...bug, name };
}

/** The object as it is, but for some members. */
export function overriding<T extends object>(target: T, overrides: Partial<T>): T {
  return new Proxy(target, {
    get: (_, key) => {
      if (key in overrides) return overrides[key as keyof T];
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** A store whose files of the log, or the image, are changed. */
export function withFiles(
  store: FileStore,
  place: MutantPlace,
  which: "log" | "image",
  change: (file: BlockFile) => Partial<BlockFile>,
): FileStore {
  const wanted = (path: string): boolean =>
    which === "image" ? path === place.imagePath : path.startsWith(`${place.logDirectory}/`);
  return overriding(store, {
    open: async (path, options) => {
      const file = await store.open(path, options);
      return wanted(path) ? overriding(file, change(file)) : file;
    },
  });
}

/** A log whose writer is changed; `change` sees the listener, too. */
export function withWriter(
  log: WriteLog,
  change: (writer: LogWriter, options: LogOpenOptions) => Partial<LogWriter>,
): WriteLog {
  return overriding(log, {
    open: async (options) => {
      const writer = await log.open(options);
      return overriding(writer, change(writer, options));
    },
  });
}
