// Which base and which runs of log make a point, with rollbacks, clones and holes, as docs/specs/history.md has it.
import { describe, expect, it } from "vitest";
import { planFold } from "#shared/adapters/history/fold-plan.ts";
import { Histories } from "#shared/adapters/history/histories.ts";
import type { VolumeView } from "#shared/adapters/history/volume-view.ts";
import { MemoryObjectStore } from "#shared/adapters/object-store/memory.ts";
import type { BaseRef, VolumeManifest, VolumeOrigin } from "#shared/domain/archive.ts";
import { MadeVolume } from "../../tools/made-bucket.ts";
import { SteppedClock } from "../file-store/stepped-clock.ts";

interface Facts {
  readonly bases?: readonly (readonly [number, number])[];
  readonly rebases?: readonly (readonly [number, number])[];
  readonly origin?: VolumeOrigin;
}

function viewWith({ bases = [], rebases = [], origin }: Facts): VolumeView {
  const refs = bases.map(
    ([s, e]): BaseRef => ({ key: `${s}-${e}`, s, e, sizeBytes: 4096, newChunkBytes: 0 }),
  );
  return {
    volumeId: "00000000000000a1",
    manifest: { bases: refs } as unknown as VolumeManifest,
    begin: { sizeBytes: 4096, origin: origin ?? null },
    archivedLsn: 100,
    hotLog: null,
    tail: null,
    lastLsn: 100,
    rebases: rebases.map(([lsn, toLsn]) => ({ lsn, toLsn })),
    resizes: [],
    release: () => undefined,
  };
}

async function planOf(facts: Facts, lsn: number, parent?: VolumeView): Promise<string> {
  const { base, runs } = await planFold(viewWith(facts), lsn, async () => parent as VolumeView, 16);
  const parts = runs.map(({ afterLsn, toLsn }) => `(${afterLsn}, ${toLsn}]`);
  return [base === null ? "empty" : `base ${base.ref.key}`, ...parts].join(" ");
}

describe("the plan of a fold", () => {
  it("takes the newest base with e at or below the point", async () => {
    const bases = [
      [10, 12],
      [30, 35],
    ] as const;
    expect(await planOf({ bases }, 11)).toBe("empty (0, 11]");
    expect(await planOf({ bases }, 12)).toBe("base 10-12 (10, 12]");
    expect(await planOf({ bases }, 34)).toBe("base 10-12 (10, 34]");
    expect(await planOf({ bases }, 35)).toBe("base 30-35 (30, 35]");
    expect(await planOf({ bases: [[0, 0]] }, 0)).toBe("base 0-0 (0, 0]");
  });

  it("follows rollbacks down, and never uses a base with s before the rollback", async () => {
    const rebases = [[20, 5]] as const;
    expect(await planOf({ rebases }, 25)).toBe("empty (0, 5] (20, 25]");
    expect(await planOf({ rebases }, 19)).toBe("empty (0, 19]");
    expect(await planOf({ rebases, bases: [[10, 12]] }, 25)).toBe("empty (0, 5] (20, 25]");
    expect(await planOf({ rebases, bases: [[2, 4]] }, 25)).toBe("base 2-4 (2, 5] (20, 25]");
    expect(await planOf({ rebases, bases: [[20, 22]] }, 25)).toBe("base 20-22 (20, 25]");
    expect(await planOf({ rebases, bases: [[20, 22]] }, 21)).toBe("empty (0, 5] (20, 21]");
    const twice = { rebases: [...rebases, [30, 22] as const] };
    expect(await planOf(twice, 40)).toBe("empty (0, 5] (20, 22] (30, 40]");
    // Forward again: the point before the first rollback.
    expect(await planOf({ rebases: [...rebases, [30, 19] as const] }, 31)).toBe("empty (0, 19] (30, 31]");
  });

  it("goes on in a clone's parent", async () => {
    const origin = { volumeId: "00000000000000b2", name: "parent", lsn: 50 };
    const parent = viewWith({ bases: [[40, 45]] });
    expect(await planOf({ origin }, 7, parent)).toBe("base 40-45 (40, 50] (0, 7]");
    expect(await planOf({ origin, bases: [[3, 4]] }, 7, parent)).toBe("base 3-4 (3, 7]");
  });

  it("refuses a walk without end", async () => {
    const rebases = Array.from({ length: 20 }, (_, index) => [index * 2 + 4, index * 2 + 2] as const);
    await expect(planOf({ rebases }, 99)).rejects.toMatchObject({ _tag: "HistoryTooLong", kind: "Full" });
  });
});

describe("holes in the log", () => {
  async function volumeWithLog(): Promise<{ volume: MadeVolume; histories: Histories }> {
    const clock = new SteppedClock(1);
    const store = new MemoryObjectStore(clock);
    const volume = new MadeVolume(store, { volumeId: "00000000000000a1", sizeBytes: 64 * 1024 });
    for (let index = 0; index < 9; index += 1) volume.write(index * 100, Buffer.alloc(100, index + 1));
    await volume.seal(1);
    return { volume, histories: new Histories({ store, clock, limits: { manifestMs: 0 } }) };
  }

  it("a segment that no manifest names, but should, is Corrupt", async () => {
    const { volume, histories } = await volumeWithLog();
    const subject = volume.subject();
    const manifest = await volume.publish();
    const { segments } = manifest;
    const history = histories.of({
      ...subject,
      hotLog: () => null,
      manifest: async () => ({ ...manifest, segments: [...segments.slice(0, 4), ...segments.slice(5)] }),
    });
    await expect(history.open(8)).rejects.toMatchObject({ _tag: "HistoryIncomplete", kind: "Corrupt" });
    expect((await history.open(4)).sizeBytes).toBe(64 * 1024);
  });

  it("a segment of another line is Corrupt, but that of an ancestor is the past of a rescue", async () => {
    const { volume } = await volumeWithLog();
    const manifest = await volume.publish();
    const { line, archivedLsn } = manifest;
    const other = { ...manifest, line: "2222222222222222", lineNumber: 2 };
    const historyOf = (ancestors: readonly { line: string; lastLsn: number }[]) =>
      // What was read once is in memory: each has a process of his own.
      new Histories({ store: volume.store, clock: new SteppedClock(1) }).of({
        ...volume.subject(),
        hotLog: () => null,
        manifest: async () => ({ ...other, ancestors }),
      });
    await (await historyOf([{ line, lastLsn: archivedLsn }]).open(8)).close();
    for (const ancestors of [
      [],
      [{ line, lastLsn: 5 }],
      [{ line: "3333333333333333", lastLsn: archivedLsn }],
    ]) {
      await expect(historyOf(ancestors).open(8)).rejects.toMatchObject({
        _tag: "BucketObjectDamaged",
        kind: "Corrupt",
      });
    }
  });

  it("what was given up while the bucket was away is Invalid, what stands around it opens", async () => {
    const { volume, histories } = await volumeWithLog();
    const { SeededRandom } = await import("../../tools/seeded-random.ts");
    await volume.takeBase(8, 8, new SeededRandom(1));
    const manifest = await volume.publish((all) => ({
      ...all,
      gaps: [{ fromLsn: 4, toLsn: 8 }],
      segments: all.segments.filter(({ lastLsn }) => lastLsn < 4 || lastLsn >= 8),
    }));
    const history = await histories.fromBucket(volume.volumeId);
    for (const lsn of [4, 7]) {
      await expect(history.open(lsn)).rejects.toMatchObject({ _tag: "PointInGap", kind: "Invalid" });
      await expect(history.resolve({ kind: "lsn", lsn })).rejects.toMatchObject({ _tag: "PointInGap" });
    }
    for (const lsn of [3, 8, 10]) await (await history.open(lsn)).close();
    // A time in the hole has no point: what came last before it is not known.
    const inside = volume.wallTimes[6] as number;
    await expect(history.resolve({ kind: "time", wallTimeMs: inside })).rejects.toMatchObject({
      _tag: "PointInGap",
    });
    expect(manifest.segments.length).toBe(6);
  });

  it("a point below the window is Invalid and names the range, but a snapshot's base opens", async () => {
    const { volume, histories } = await volumeWithLog();
    const { SeededRandom } = await import("../../tools/seeded-random.ts");
    await volume.takeBase(3, 3, new SeededRandom(1));
    await volume.takeBase(7, 7, new SeededRandom(1));
    volume.snapshots.push({ name: "kept", lsn: 3, wallTimeMs: volume.wallTimes[3] as number });
    await volume.publish((all) => ({
      ...all,
      retainedFromLsn: 7,
      segments: all.segments.filter(({ firstLsn }) => firstLsn > 7),
    }));
    const history = await histories.fromBucket(volume.volumeId);
    const refusal = { _tag: "PointNotThere", kind: "Invalid", fields: { fromLsn: 7, toLsn: 10 } };
    await expect(history.open(5)).rejects.toMatchObject(refusal);
    await expect(history.resolve({ kind: "lsn", lsn: 5 })).rejects.toMatchObject(refusal);
    await expect(history.resolve({ kind: "lsn", lsn: 11 })).rejects.toMatchObject(refusal);
    await expect(history.open(11)).rejects.toMatchObject(refusal);
    await expect(history.resolve({ kind: "mark", name: "gone" })).rejects.toMatchObject(refusal);
    expect(await history.resolve({ kind: "mark", name: "kept" })).toMatchObject({ lsn: 3 });
    expect(await history.resolve({ kind: "lsn", lsn: 3 })).toMatchObject({ lsn: 3 });
    for (const lsn of [3, 7, 8, 10]) await (await history.open(lsn)).close();
  });
});
