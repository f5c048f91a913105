/*
 * Deleted volumes whose files stay: until the bucket holds the deletion and all that it names, it may still lose both. Session and
 * archiver of such a volume go on without clients, so that what was lost is stored again; its name is taken; it can come back as it is.
 * volume-host.ts orders deletions through it. States and what a crash leaves: docs/specs/volume-host.md, "Deleting".
 */
import { VarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { RescuedVolume } from "#shared/ports/bucket-administration.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { VolumeView } from "#shared/ports/volume-administration.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import type { HostWaits } from "./host-waits.ts";
import type { HostedVolume } from "./hosted-volume.ts";

/** Looked at so soon, then half as often each time, down to the second: does the bucket hold it? */
const lookMinMs = 10;
const lookMaxMs = 1_000;
/** A command that deletes waits so long at most, where it is gone by then: a store that syncs holds it at once. */
const goneWaitMs = 2_000;

export interface SettlingOptions {
  readonly clock: Clock;
  readonly catalog: Pick<VolumeCatalog, "put">;
  readonly waits: Pick<HostWaits, "forBucket">;
  /** Volumes that are not deleted. */
  readonly here: Map<string, HostedVolume>;
  /** What this process does: serves volumes beside a bucket, or without one, or works on their files only. */
  readonly mode: () => "archiving" | "no bucket" | "offline";
  readonly change: <T>(work: () => Promise<T>) => Promise<T>;
  /** Files and record. */
  readonly forget: (record: VolumeRecord) => Promise<void>;
  /** Pins of what went. */
  readonly dropPins: () => Promise<void>;
}

interface Settling {
  readonly volume: HostedVolume;
  readonly gone: Promise<void>;
  readonly end: () => void;
}

export class SettlingVolumes {
  readonly #options: SettlingOptions;
  readonly #settling = new Map<string, Settling>();
  #stopped = false;

  constructor(options: SettlingOptions) {
    this.#options = options;
  }

  list(): readonly HostedVolume[] {
    return [...this.#settling.values()].map(({ volume }) => volume);
  }

  names(): readonly string[] {
    return [...this.#settling.keys()];
  }

  has(volumeId: string): boolean {
    return this.list().some(({ record }) => record.id === volumeId);
  }

  view(name: string): VolumeView | null {
    const volume = this.#settling.get(name)?.volume;
    if (volume === undefined) return null;
    return { ...volume.view(), condition: "deleting", heldInMs: volume.past.heldInMs() };
  }

  /** For whoever wants the volume of that name, or the name; null where it is none of these. */
  refusal(name: string): VarveError | null {
    const volume = this.#settling.get(name)?.volume;
    return volume === undefined ? null : this.#refusalOf(volume);
  }

  refuse(name: string): void {
    const refusal = this.refusal(name);
    if (refusal !== null) throw refusal;
  }

  /** Found by a start; it is opened by serve(). */
  found(volume: HostedVolume): void {
    volume.past.staysDeleted();
    this.#add(volume);
  }

  /** From now on it is looked whether the bucket holds it, whatever became of its opening. */
  async open(volume: HostedVolume): Promise<void> {
    if (this.#options.mode() !== "archiving") return;
    await volume.openKept();
    this.#watch(volume);
  }

  /**
   * Within a change, of a volume that nobody is attached to: the bucket has all of it and says that it goes, then the catalogue says
   * so. Its files go at once where no bucket has it or can be told.
   */
  async delete(volume: HostedVolume): Promise<void> {
    const { catalog, here, waits } = this.#options;
    const isArchived = this.#options.mode() === "archiving" && volume.failure === null;
    try {
      if (isArchived) await waits.forBucket(volume.past.archiveAll(), volume.past);
      if (isArchived) await waits.forBucket(volume.past.publishDeleted(), volume.past);
      await catalog.put({ ...volume.record, state: isArchived ? "settling" : "deleting" });
    } catch (cause) {
      volume.past.notDeleted().catch(() => undefined); // told by a later manifest
      throw cause;
    }
    here.delete(volume.name);
    if (!isArchived) return await this.#end(volume);
    volume.record = { ...volume.record, state: "settling" };
    this.#add(volume);
    this.#watch(volume);
  }

  /** Within a change: deleted once more. Where nothing can bring it into the bucket any more, its files go as they are. */
  async deleteAgain(name: string): Promise<void> {
    const volume = this.#settling.get(name)?.volume;
    if (volume === undefined) return;
    if (this.#options.mode() === "offline" || this.#troubleOf(volume) === null) throw this.#refusalOf(volume);
    await this.#finish(volume);
  }

  /** Resolves when it is gone, or at once where that takes longer than anybody waits for. */
  async goneSoon(name: string): Promise<void> {
    const one = this.#settling.get(name);
    if (one === undefined) return;
    const leftMs = one.volume.past.heldInMs();
    if (leftMs === null || leftMs > goneWaitMs) return;
    await new Promise<void>((resolve) => {
      const timer = this.#options.clock.after(goneWaitMs, resolve);
      one.gone
        .then(resolve)
        .finally(() => timer.cancel())
        .catch(() => undefined);
    });
  }

  /** By name or id: served again, with everything; null where it is none of these. */
  async takeBack(name: string, as: string | undefined): Promise<RescuedVolume | null> {
    const wanted = (): HostedVolume | undefined =>
      this.list().find((one) => (one.name === name || one.record.id === name) && !isGoing(one));
    if (wanted() === undefined) return null;
    return await this.#options.change(async () => {
      const volume = wanted();
      if (volume === undefined) return null;
      if (as !== undefined && as !== volume.name) throw onlyAsItself(volume.name, as);
      const record: VolumeRecord = { ...volume.record, state: "active" };
      await this.#options.catalog.put(record);
      volume.record = record;
      this.#settling.get(volume.name)?.end();
      this.#settling.delete(volume.name);
      this.#options.here.set(volume.name, volume);
      // A bucket that does not answer in time is told later: the volume is back.
      await this.#options.waits.forBucket(volume.past.notDeleted()).catch(() => undefined);
      return await reachedOf(volume);
    });
  }

  /** Nothing is looked at any more. */
  stop(): void {
    this.#stopped = true;
    for (const { end } of this.#settling.values()) end();
  }

  #add(volume: HostedVolume): void {
    let end = (): void => undefined;
    const gone = new Promise<void>((resolve) => {
      end = resolve;
    });
    this.#settling.set(volume.name, { volume, gone, end });
  }

  #watch(volume: HostedVolume): void {
    const one = this.#settling.get(volume.name);
    if (one !== undefined) this.#untilHeld(one).catch(() => undefined); // it looks again until it may end
  }

  /** Not taken back, nor deleted once more. */
  #isSettling(one: Settling): boolean {
    return !this.#stopped && this.#settling.get(one.volume.name) === one;
  }

  async #untilHeld(one: Settling): Promise<void> {
    const { clock, change } = this.#options;
    const { past } = one.volume;
    for (let waitMs: number = lookMinMs; this.#isSettling(one); ) {
      try {
        if (past.heldInMs() === null && !isGoing(one.volume)) await past.tellDeleted();
        if (mayGo(one.volume)) await change(async () => this.#finishHeld(one));
      } catch {
        // The bucket is away, or a file could not be removed: looked at again, and after the next start.
      }
      if (!this.#isSettling(one)) return;
      const ms = waitMs;
      await new Promise<void>((resolve) => {
        clock.after(ms, resolve);
      });
      waitMs = Math.min(2 * waitMs, lookMaxMs);
    }
  }

  /** Somebody may have taken it back meanwhile. */
  async #finishHeld(one: Settling): Promise<void> {
    if (this.#isSettling(one) && mayGo(one.volume)) await this.#finish(one.volume);
  }

  /** The record first: a start that finds it goes on with the files. */
  async #finish(volume: HostedVolume): Promise<void> {
    await this.#options.catalog.put({ ...volume.record, state: "deleting" });
    volume.record = { ...volume.record, state: "deleting" };
    await this.#end(volume);
  }

  async #end(volume: HostedVolume): Promise<void> {
    // Its data goes now: what a last checkpoint could still complain about does not matter.
    await volume.close().catch(() => undefined);
    await this.#options.forget(volume.record);
    const one = this.#settling.get(volume.name);
    this.#settling.delete(volume.name);
    // What fails here is done by the next upkeep.
    await this.#options.dropPins().catch(() => undefined);
    one?.end();
  }

  /** Why the bucket never comes to hold it as things are. */
  #troubleOf({ failure, past }: HostedVolume): string | null {
    if (this.#options.mode() === "no bucket") return "this server has no bucket";
    const archive = past.archiveStatus;
    return (failure ?? (archive?.state === "stopped" ? archive.error : null))?.message ?? null;
  }

  #refusalOf(volume: HostedVolume): VarveError {
    if (this.#options.mode() !== "offline") return volumeSettling(volume, this.#troubleOf(volume));
    return settlingOffline(volume.name);
  }
}

/** Its files are being removed, or some of them are gone and the rest could not be. */
const isGoing = ({ record }: HostedVolume): boolean => record.state === "deleting";

const mayGo = (volume: HostedVolume): boolean => isGoing(volume) || volume.past.heldInMs() === 0;

async function reachedOf(volume: HostedVolume): Promise<RescuedVolume> {
  const { record, past } = volume;
  const range = await past.reading().then(
    async (history) => history.range(),
    () => null,
  );
  const figures = volume.view().figures;
  return {
    name: record.name,
    volumeId: record.id,
    sizeBytes: record.sizeBytes,
    lsn: figures?.durableLsn ?? 0,
    reachedMs: range?.toMs ?? null,
    line: figures?.line ?? "",
    lineNumber: past.manifest()?.lineNumber ?? 1,
  };
}

function volumeSettling({ name, past }: HostedVolume, trouble: string | null): VarveError {
  const leftMs = past.heldInMs();
  const left = leftMs === null ? "" : `, in about ${Math.ceil(leftMs / 1000)} s`;
  return new VarveError(
    "VolumeSettlingError",
    "Retry",
    `volume ${name} was deleted; its files stay until the bucket holds all of it${left}`,
    {
      hint:
        trouble === null
          ? `Its name is free then; varve volume show ${name} says when. To have it back: varve volume undelete ${name}.`
          : `It does not come to that: ${trouble}. To remove its files as they are: varve volume delete ${name}.`,
      fields: { name, heldInMs: leftMs ?? -1 },
    },
  );
}

function settlingOffline(name: string): VarveError {
  return new VarveError(
    "VolumeSettlingError",
    "Retry",
    `volume ${name} was deleted; its files stay until the bucket holds all of it, and no server runs`,
    {
      hint: `Start varve up with its bucket: they go by themselves, and varve volume undelete ${name} has it back until then.`,
      fields: { name },
    },
  );
}

function onlyAsItself(name: string, as: string): VarveError {
  return new VarveError(
    "VolumeSettlingError",
    "Retry",
    `volume ${name} comes back as ${name} only, not as ${as}: its files are still here`,
    {
      hint: `Leave out --as, or wait until the bucket holds all of it: varve volume show ${name} says when.`,
      fields: { name, as },
    },
  );
}
