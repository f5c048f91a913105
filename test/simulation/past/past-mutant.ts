/*
 * The seams at which a deliberate bug can be put between the parts that make a past: store, archiver, replica. `faithful` changes
 * nothing. past-process.ts calls it while it wires a process; past-mutants.ts holds the bugs.
 */
import type { ArchiverHome } from "#shared/ports/archive.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { HistoryHome } from "#shared/ports/history-home.ts";
import type { KeptVolume } from "#shared/ports/kept-volume.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import type { ReplicaImage } from "#shared/ports/replica-image.ts";
import type { RemoteSources } from "#shared/ports/replica-residency.ts";
import type { RescuePlan } from "#shared/ports/rescue.ts";
import type { Scheduler } from "../scheduler.ts";

/** What a bug may need to know of the process that it lives in. */
export interface PastMutantPlace {
  readonly scheduler: Scheduler;
  readonly store: FileStore;
}

export interface PastMutant {
  readonly name: string;
  objects(objects: ObjectStore, place: PastMutantPlace): ObjectStore;
  archiver(archiver: ArchiverHome, place: PastMutantPlace): ArchiverHome;
  histories(histories: HistoryHome): HistoryHome;
  image(image: ReplicaImage, sources: RemoteSources, place: PastMutantPlace): ReplicaImage;
  /** The collector is told of no point that is in use. */
  readonly forgetsPoints: boolean;
  /** A volume as scrub, trimmer and exact bases see it. */
  kept(volume: KeptVolume): KeptVolume;
  /** What an undelete makes its files from. */
  plan(plan: RescuePlan): RescuePlan;
  /** Replaces the settle time that the archiver is told. */
  readonly settleMs: number | null;
}

export const faithfulPast: PastMutant = {
  name: "faithful",
  objects: (objects) => objects,
  archiver: (archiver) => archiver,
  histories: (histories) => histories,
  image: (image) => image,
  forgetsPoints: false,
  kept: (volume) => volume,
  plan: (plan) => plan,
  settleMs: null,
};

export function pastMutant(name: string, bug: Partial<Omit<PastMutant, "name">>): PastMutant {
  return { ...faithfulPast, ...bug, name };
}
