/*
 * Scrubs and undeletes of the world with a past. A scrub beside clients finds nothing, whatever they write; one at rest finds each
 * byte that was changed behind the process, and repairs it. A deleted volume comes back with every entry, until its grace is over.
 * Called by past-operations.ts (under load) and past-run.ts (at rest).
 */
import { isBuried } from "../../../services/archiver/engine/volume-burial.ts";
import type { PastLife } from "./past-life.ts";
import type { ServedVolume } from "./past-process.ts";
import type { VolumeLedger } from "./volume-ledger.ts";

const extentBytes = 4 << 20;
const fast = 1 << 30;

/** The job has ended; rejects as it failed. */
export async function jobEnded(life: PastLife, id: string): Promise<void> {
  const { jobs } = life.opened.host;
  while (jobs.show(id).state === "running") {
    await new Promise<void>((resolve) => {
      life.scheduler.after(20, resolve);
    });
  }
  const { failure } = jobs.show(id);
  if (failure !== null) throw failure;
}

/** Clients write, extents come and go: none of it is damage. */
export async function scrubUnderLoad(life: PastLife, volume: ServedVolume, repair: boolean): Promise<void> {
  const { keeper, host } = life.opened;
  const { id } = keeper.scrub(volume.name, { repair, bytesPerSecond: fast });
  await jobEnded(life, id);
  if (host.jobs.show(id).state !== "done") return;
  const found = keeper.report(id);
  if (found.kind !== "scrub") return;
  life.world.count("scrubs under load");
  const [damaged] = found.report.damaged;
  if (damaged !== undefined) {
    life.fail(`a scrub calls extent ${damaged.extent} of ${volume.name} damaged, which nobody damaged`);
  }
}

/** At rest: a byte of the image turns over behind the process. */
export async function judgeScrub(life: PastLife): Promise<void> {
  if (life.serving.length === 0) return;
  const { world } = life;
  const { random, scheduler, plan } = world;
  const volume = random.pick(life.serving);
  // A base that reads an extent which entries touched takes its damage over: none is due once all is archived and held.
  if (volume.archive === null || !world.watch.nothingLost) return;
  await scheduler.until(volume.archive.archive(volume.ledger.lastLsn), `archiving ${volume.name}`);
  await scheduler.pass(3 * plan.settleMs + 5_000);
  if (volume.archive.status().heldLsn < volume.ledger.lastLsn) return;

  const local = volume.session.baseImage();
  const { sizeBytes } = local.state();
  const offset = random.integer(0, sizeBytes);
  const extent = Math.floor(offset / extentBytes);
  const { imagePath } = life.opened.host.show(volume.name);
  const file = world.disk.names.seen.files.get(imagePath)?.cache;
  const isKept = life.opened.host.kept().some((one) => one.volumeId === volume.ledger.id);
  if (file === undefined || !isKept || !local.isLocal(extent)) return;
  const byte = Buffer.alloc(1);
  file.read(byte, offset);
  const right = byte[0] ?? 0;
  const wrong = right ^ (1 << (offset % 8));
  file.write(Buffer.from([wrong]), offset);
  life.note(`byte ${offset} of ${volume.name} changes behind the process, then a scrub`);
  try {
    await judgeFound(life, volume, offset);
  } finally {
    // Where it was not repaired the image is as it was: the byte goes back.
    file.read(byte, offset);
    if (local.isLocal(extent) && byte[0] === wrong) file.write(Buffer.from([right]), offset);
  }
}

/** A scrub finds this byte and no other, and repairs it: the bucket holds the whole log. */
async function judgeFound(life: PastLife, volume: ServedVolume, offset: number): Promise<void> {
  const { world } = life;
  const { keeper } = life.opened;
  const extent = Math.floor(offset / extentBytes);
  const { id } = keeper.scrub(volume.name, { repair: true, bytesPerSecond: fast });
  await world.scheduler.until(jobEnded(life, id), `scrubbing ${volume.name}`);
  const found = keeper.report(id);
  const damaged = found.kind === "scrub" ? found.report.damaged : [];
  const [first] = damaged;
  // Tiering was quicker: its bytes are in the bucket only.
  if (first === undefined && !volume.session.baseImage().isLocal(extent)) return;
  if (damaged.length !== 1 || first?.extent !== extent || first.firstOffset !== offset) {
    throw new Error(`byte ${offset} of ${volume.name} was changed, a scrub found ${JSON.stringify(damaged)}`);
  }
  world.count("damaged extents repaired");
  if (!first.repaired) {
    throw new Error(
      `extent ${extent} of ${volume.name} was not repaired although the bucket holds all of it`,
    );
  }
}

/** One of the deleted volumes that may come back now, whatever its bucket lost; null where there is none. */
export function deletedVolume(life: PastLife): VolumeLedger | null {
  const { world, opened } = life;
  for (const ledger of world.ledgers.values()) {
    if (!ledger.deleted || ledger.unsure) continue;
    if (opened.host.settling.has(ledger.id)) return ledger;
    const present = world.watch.present.get(ledger.id)?.manifest;
    if (present === undefined) continue;
    // Whatever became of the process in the middle of an undelete.
    if (present.deletedAtMs === null) life.fail(`${ledger.name} is neither served nor deleted in the bucket`);
    if (!isBuried(present)) return ledger;
  }
  return null;
}

export async function undelete(life: PastLife, ledger: VolumeLedger): Promise<void> {
  const { world, opened } = life;
  const expected = ledger.lastLsn;
  const isSettling = opened.host.settling.has(ledger.id);
  if (isSettling) world.count("undeletes of volumes that settle");
  // A process that ends in the middle leaves it deleted, or brought back.
  ledger.unsure = true;
  try {
    const { lsn } = await opened.keeper.undelete(ledger.id);
    // One that settles may just be opened, which is an entry, too.
    if (lsn !== (isSettling ? ledger.lastLsn : expected))
      life.fail(`${ledger.name} came back up to LSN ${lsn} of ${expected}`);
    ledger.deleted = false;
    ledger.made = true;
    ledger.unsure = false;
    world.count("volumes undeleted");
  } catch (cause) {
    if (!life.closing) ledger.unsure = false;
    throw cause;
  }
}
