/*
 * What is known of one volume at one moment: its manifest, and the hot log's tail behind it up to an LSN. Everything that
 * answers a question about the past (volume-past.ts) takes such a view first and then asks nothing twice, so that answers
 * fit together while the archiver goes on.
 */
import type { VolumeManifest, VolumeOrigin } from "#shared/domain/archive.ts";
import { toVarveError } from "#shared/domain/errors.ts";
import type { HistorySubject, HotLog } from "#shared/ports/history.ts";
import { historyIncomplete, historyNotKnown, isLogReleased } from "./history-errors.ts";
import { type HotTail, scanHotTail } from "./hot-tail.ts";

export interface VolumeView {
  readonly volumeId: string;
  readonly manifest: VolumeManifest | null;
  readonly begin: { readonly sizeBytes: number; readonly origin: VolumeOrigin | null };
  /** Everything up to here is in segments, or given up. */
  readonly archivedLsn: number;
  readonly hotLog: HotLog | null;
  /** Entries (archivedLsn, upToLsn], where they were asked for and are there. Pinned until release(). */
  readonly tail: HotTail | null;
  /** The last LSN that this view can fold to. */
  readonly lastLsn: number;
  /** Ascending, those of the tail behind those of the manifest. */
  readonly rebases: readonly { readonly lsn: number; readonly toLsn: number }[];
  readonly resizes: readonly { readonly lsn: number; readonly sizeBytes: number }[];
  readonly release: () => void;
}

/** The archiver may publish and release between two steps: looked at again, so often at most. */
const attemptsMax = 5;

/** A view that reaches `upToLsn` where that is durable; 0 asks for nothing past the archived LSN. */
export async function viewOf(
  subject: HistorySubject,
  upToLsn: number,
  entriesMax: number,
): Promise<VolumeView> {
  for (let attempt = 1; ; attempt += 1) {
    const hotLog = subject.hotLog();
    const manifest = await presentManifest(subject, hotLog);
    const archivedLsn = manifest?.archivedLsn ?? 0;
    if (hotLog === null || upToLsn <= archivedLsn) return makeView(subject, manifest, hotLog, null);
    try {
      const tail = await scanHotTail(hotLog, archivedLsn, upToLsn, entriesMax);
      if (tail !== null) return makeView(subject, manifest, hotLog, tail);
    } catch (error) {
      if (isLogReleased(error) && attempt < attemptsMax) continue;
      throw error;
    }
    if (manifest === null) throw historyNotKnown(subject.volumeId, subject.trouble?.() ?? null);
    if (attempt === attemptsMax) {
      const { oldestLsn } = hotLog.state();
      const what = `the hot log begins at LSN ${oldestLsn}, but only entries up to ${archivedLsn} are archived`;
      throw historyIncomplete(subject.volumeId, archivedLsn + 1, what);
    }
  }
}

/** A log that is here from its first entry needs no bucket: null is taken for "nothing archived" then. */
async function presentManifest(
  subject: HistorySubject,
  hotLog: HotLog | null,
): Promise<VolumeManifest | null> {
  try {
    return await subject.manifest();
  } catch (error) {
    const needsNone = toVarveError(error, "manifest").kind === "Retry" && hotLog?.state().oldestLsn === 1;
    if (!needsNone) throw error;
    return null;
  }
}

function makeView(
  subject: HistorySubject,
  manifest: VolumeManifest | null,
  hotLog: HotLog | null,
  tail: HotTail | null,
): VolumeView {
  const archivedLsn = manifest?.archivedLsn ?? 0;
  const rebases = [...(manifest?.rebases ?? [])];
  const resizes = [...(manifest?.resizes ?? [])];
  for (const event of tail?.events ?? []) {
    if (event.lsn <= archivedLsn) continue;
    if (event.kind === "rebase") rebases.push({ lsn: event.lsn, toLsn: event.toLsn });
    if (event.kind === "resize") resizes.push({ lsn: event.lsn, sizeBytes: event.sizeBytes });
  }
  return {
    volumeId: subject.volumeId,
    manifest,
    begin: subject.begin,
    archivedLsn,
    hotLog,
    tail,
    lastLsn: Math.max(archivedLsn, tail?.lastLsn ?? 0),
    rebases,
    resizes,
    // Not a closure over the tail: what only has to be released must not keep its columns in memory.
    release: tail?.release ?? nothingToRelease,
  };
}

const nothingToRelease = (): void => undefined;

/** Size of the disk at that LSN: the newest fact that says so. */
export function sizeAt(view: VolumeView, lsn: number): number {
  let at = 0;
  let size = view.begin.sizeBytes;
  for (const resize of view.resizes) {
    if (resize.lsn <= lsn && resize.lsn > at) {
      at = resize.lsn;
      size = resize.sizeBytes;
    }
  }
  // A manifest that was trimmed may have let old resizes go, but its bases say their size.
  for (const base of view.manifest?.bases ?? []) {
    if (base.s <= lsn && base.s > at) {
      at = base.s;
      size = base.sizeBytes;
    }
  }
  return size;
}

/** Whose log an entry is: a rescue continues another line. */
export function lineAt(view: VolumeView, lsn: number): string | null {
  for (const ancestor of view.manifest?.ancestors ?? []) if (lsn <= ancestor.lastLsn) return ancestor.line;
  return view.manifest?.line ?? null;
}
