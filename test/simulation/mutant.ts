/*
 * The seams at which a deliberate bug can be put between Varve's parts: each port that a life wires passes through here.
 * `faithful` changes nothing. life.ts calls it while it opens a volume; mutants.ts holds the bugs.
 */
import type { BlockExport } from "#shared/ports/block-export.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { ReplicaImage } from "#shared/ports/replica-image.ts";
import type { WriteLog } from "#shared/ports/write-log.ts";
import type { ReplicaFeed, ReplicaFeedHandlers } from "#shared/ports/replica-feed.ts";
import type { PendingBatch } from "../../services/gateway/engine/volume-writer.ts";
import type { Scheduler } from "./scheduler.ts";

export type FeedMaker = (handlers: ReplicaFeedHandlers<PendingBatch>) => ReplicaFeed<PendingBatch>;

export interface MutantPlace {
  readonly scheduler: Scheduler;
  readonly logDirectory: string;
  readonly imagePath: string;
}

export interface Mutant {
  readonly name: string;
  store(store: FileStore, place: MutantPlace): FileStore;
  log(log: WriteLog, place: MutantPlace): WriteLog;
  image(image: ReplicaImage, place: MutantPlace): ReplicaImage;
  feed(maker: FeedMaker, image: ReplicaImage): FeedMaker;
  opened(opened: BlockExport): BlockExport;
}

export const faithful: Mutant = {
  name: "faithful",
  store: (store) => store,
  log: (log) => log,
  image: (image) => image,
  feed: (maker) => maker,
  opened: (opened) => opened,
};
