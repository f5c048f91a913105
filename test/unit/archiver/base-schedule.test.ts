// What the next base has to look at, when another base becomes the one to build on while one is being taken. An extent that is
// forgotten here is an extent with the bytes of another time in every point that is opened from that base.
import { describe, expect, it } from "vitest";
import { InlineArchiveWorker } from "#shared/adapters/archive-worker/inline.ts";
import type { BaseRef, SegmentRef, SegmentSummary, VolumeManifest } from "#shared/domain/archive.ts";
import type { ArchiveParts } from "../../../services/archiver/engine/archive-parts.ts";
import { BaseSchedule } from "../../../services/archiver/engine/base-schedule.ts";
import type { BucketPatience } from "../../../services/archiver/engine/bucket-patience.ts";

const baseAt = (s: number): BaseRef => ({ key: `base ${s}`, s, e: s, sizeBytes: 1 << 23, newChunkBytes: 0 });

const segment = (firstLsn: number, lastLsn: number): SegmentRef => ({
  key: `segment ${firstLsn}`,
  firstLsn,
  lastLsn,
  bytes: 100,
  footerStart: 50,
  recordBytes: 4096,
  wallMinMs: 0,
  wallMaxMs: 0,
});

const summary = (extent: number): SegmentSummary =>
  ({ extents: [{ first: extent, count: 1 }], recordBytes: 4096 }) as unknown as SegmentSummary;

type Chronicle = Partial<Pick<VolumeManifest, "bases" | "rebases" | "segments">>;

function manifest(chronicle: Chronicle): VolumeManifest {
  const archivedLsn = chronicle.segments?.at(-1)?.lastLsn ?? 0;
  return {
    bases: [],
    rebases: [],
    gaps: [],
    pages: [],
    segments: [],
    archivedLsn,
    ...chronicle,
  } as unknown as VolumeManifest;
}

/** Nothing is fetched in these tests: whether it would be is the question. */
const newSchedule = (): BaseSchedule =>
  new BaseSchedule(
    { worker: new InlineArchiveWorker(), options: {} } as unknown as ArchiveParts,
    {} as BucketPatience,
  );

describe("what the next base looks at", () => {
  const segments = [segment(1, 6), segment(7, 20)];

  it("a base that is given up for a rollback leaves its extents unknown, not untouched", () => {
    const schedule = newSchedule();
    schedule.published(manifest({ bases: [baseAt(6)], segments: segments.slice(0, 1) }), []);
    schedule.published(manifest({ bases: [baseAt(6)], segments }), [summary(1)]);
    schedule.published(manifest({ bases: [baseAt(6), baseAt(20)], segments }), []);
    const later = [...segments, segment(21, 25)];
    schedule.published(manifest({ bases: [baseAt(6), baseAt(20)], segments: later }), [summary(0)]);
    const task = schedule.isReady ? schedule.take() : null;
    expect(task?.previous?.s).toBe(20);
    // The rollback goes back before base 20: base 6 is the one to build on, and entries 7 to 26 are to be looked at again.
    const rebases = [{ lsn: 26, toLsn: 9 }];
    const rolled = manifest({
      bases: [baseAt(6), baseAt(20)],
      segments: [...later, segment(26, 26)],
      rebases,
    });
    schedule.published(rolled, [summary(0)]);
    expect(schedule.isReady).toBe(false);
    if (task === null) return;
    schedule.expect(baseAt(25), task);
    schedule.abandoned(task);
    expect(schedule.isReady).toBe(false);
  });

  it("entries behind a base that began before another one to build on was published are not forgotten", () => {
    const schedule = newSchedule();
    schedule.published(manifest({ bases: [baseAt(6)], segments: segments.slice(0, 1) }), []);
    schedule.published(manifest({ bases: [baseAt(6)], segments }), [summary(1)]);
    const task = schedule.take();
    const later = [...segments, segment(21, 30)];
    schedule.published(manifest({ bases: [baseAt(6)], segments: later }), [summary(2)]);
    // A snapshot's exact base is now the newest one.
    schedule.published(manifest({ bases: [baseAt(6), baseAt(15)], segments: later }), []);
    schedule.expect(baseAt(20), task);
    schedule.published(manifest({ bases: [baseAt(6), baseAt(15), baseAt(20)], segments: later }), []);
    // Extent 2 was touched by entries 21 to 30, which nobody has told this account of.
    expect(schedule.isReady).toBe(false);
  });

  it("a base that is given up with nothing else changed gives its extents to the next one", () => {
    const schedule = newSchedule();
    schedule.published(manifest({ bases: [baseAt(6)], segments: segments.slice(0, 1) }), []);
    schedule.published(manifest({ bases: [baseAt(6)], segments }), [summary(1)]);
    const task = schedule.take();
    schedule.published(manifest({ bases: [baseAt(6)], segments: [...segments, segment(21, 30)] }), [
      summary(3),
    ]);
    schedule.expect(baseAt(20), task);
    schedule.abandoned(task);
    expect(schedule.isReady).toBe(true);
    expect(schedule.take().dirty.runs(10)).toEqual([
      { first: 1, count: 1 },
      { first: 3, count: 1 },
    ]);
  });
});
