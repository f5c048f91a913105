// Who may archive a volume: rescued elsewhere, copied, put back from a backup, paused and late. Nothing is written by who may not.
import { describe, expect, test } from "vitest";
import { lineMarkerKey, manifestKey, type VolumeManifest } from "#shared/domain/archive.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import { encodeManifest } from "#shared/formats/manifest-object.ts";
import { ArchiveWorld, volumeId, WorldLog } from "./archive-world.ts";

const diskBytes = 9 * 1024 * 1024;

/** Something that a request waits for until the test opens it. */
function door(): { readonly passed: Promise<void>; open(): void } {
  let open = (): void => undefined;
  const passed = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { passed, open: () => open() };
}

describe("who may archive", () => {
  async function archivedWorld(seed: number): Promise<ArchiveWorld> {
    const world = new ArchiveWorld(seed, diskBytes);
    const { volume, store } = await world.open();
    for (let count = 0; count < 4; count += 1) world.write(0, 70_000, count);
    await world.clock.until(volume.archive(world.lastLsn));
    store.left = 0;
    return world;
  }

  async function refusal(world: ArchiveWorld): Promise<unknown> {
    const before = await world.keys();
    const life = world.start();
    const error: unknown = await world.clock.until(life.opened).then(
      () => null,
      (cause: unknown) => cause,
    );
    await world.pass(1000);
    expect(await world.keys()).toEqual(before);
    expect(world.clock.pendingTasks).toBe(0);
    return error;
  }

  test("a manifest of another line, or the next line's marker: rescued elsewhere", async () => {
    const world = await archivedWorld(31);
    const latest = (await world.manifests()).at(-1) as VolumeManifest;
    await world.bucket.put(lineMarkerKey(volumeId, 2), Buffer.from("x"));
    expect(await refusal(world)).toMatchObject({
      kind: "Fenced",
      message: expect.stringContaining("rescued elsewhere"),
    });
    await world.bucket.remove(lineMarkerKey(volumeId, 2));
    const rescued = { ...latest, lineNumber: 2, line: "ffffffffffffffff", archiverEpoch: 1, number: 1 };
    await world.bucket.put(manifestKey(rescued), encodeManifest(rescued));
    expect(await refusal(world)).toMatchObject({
      kind: "Fenced",
      message: expect.stringContaining("rescued elsewhere"),
    });
  });

  test("a marker that comes while the archiver runs stops it before its next manifest", async () => {
    const world = new ArchiveWorld(32, diskBytes);
    const { volume } = await world.open();
    world.write(0, 70_000, 1);
    await world.pass(1000);
    await world.bucket.put(lineMarkerKey(volumeId, 2), Buffer.from("x"));
    const count = (await world.manifests()).length;
    world.write(0, 70_000, 2);
    await world.pass(100_000);
    expect(world.fences.length).toBe(1);
    expect(volume.status()).toMatchObject({ state: "stopped", error: { kind: "Fenced" } });
    expect((await world.manifests()).length).toBe(count);
  });

  test("a copy of the data directory, whose archiver has our epoch", async () => {
    const world = await archivedWorld(33);
    world.archiverEpoch -= 1;
    expect(await refusal(world)).toMatchObject({ kind: "Fenced", _tag: "OtherArchiverError" });
  });

  test("a log that ends before what is archived, and one of another chain", async () => {
    const world = await archivedWorld(34);
    const own = world.log;
    world.log = new WorldLog();
    world.log.append([{ kind: "epoch", writer: "x" }], 1);
    expect(await refusal(world)).toMatchObject({ kind: "Corrupt", _tag: "LogEndsBeforeArchive" });
    for (let count = 0; count < 9; count += 1) world.log.append([{ kind: "mark", name: "m" }], count);
    expect(await refusal(world)).toMatchObject({ kind: "Corrupt", _tag: "ArchiveChainError" });
    world.log = own;
    world.write(0, 10, 1);
    const { volume } = await world.open();
    await world.clock.until(volume.archive(world.lastLsn));
    await world.expectPoints(0, "own log");
  });

  test("a bucket that is not the one which holds what the log let go: empty, or an old copy", async () => {
    const world = await archivedWorld(37);
    world.log.release(world.lastLsn - 1);
    const objects = new Map<string, Buffer>();
    for (const key of await world.keys()) {
      objects.set(key, (await world.bucket.get(key)) as Buffer);
      await world.bucket.remove(key);
    }
    expect(await refusal(world)).toMatchObject({ kind: "Corrupt", _tag: "OtherBucketError" });
    expect(world.heldLsn).toBeLessThan(world.lastLsn + 1);
    const { batches } = world.log;
    for (const [key, object] of objects) await world.bucket.put(key, object);
    world.write(0, 10, 1);
    const { volume } = await world.open();
    await world.clock.until(volume.archive(world.lastLsn));
    expect(world.log.batches).toBe(batches);
    expect(volume.manifest()?.gaps).toEqual([]);
    await world.expectPoints(0, "the right bucket");
  });

  test("a volume that ran with no bucket for a while: the hint names that cause, and its way out marks the gap", async () => {
    const world = await archivedWorld(38);
    const archived = world.lastLsn;
    for (let count = 0; count < 5; count += 1) world.write(count * 1000, 9000, count);
    world.log.release(world.lastLsn - 1);
    const { oldestLsn } = world.log.state();
    // Not by refusal(): the first life still waits to archive these writes.
    const error = await world.clock.until(world.start().opened).then(
      () => null,
      (cause: unknown) => cause as VarveError,
    );
    expect(error).toMatchObject({ kind: "Corrupt", _tag: "OtherBucketError" });
    expect(error?.hint).toContain("--bucket none meanwhile");
    expect(error?.hint).toContain("--bucket-away drop-history");
    world.facts = { ...world.facts, bucketAway: "drop history" };
    const gone = await world.open();
    await world.pass(61_000);
    await gone.volume.close();
    world.facts = { ...world.facts, bucketAway: "stop" };
    const { volume } = await world.open();
    world.write(0, 10, 1);
    await world.clock.until(volume.archive(world.lastLsn));
    expect(volume.manifest()?.gaps).toEqual([{ fromLsn: archived + 1, toLsn: oldestLsn }]);
    await world.expectPoints(volume.manifest()?.bases.at(-1)?.e ?? 0, "behind the gap");
  });

  test("a late manifest of a paused archiver with an older epoch changes nothing", async () => {
    const world = new ArchiveWorld(35, diskBytes);
    const late = door();
    const paused = await world.open();
    world.write(0, 70_000, 1);
    await world.pass(1000);
    paused.store.before = async (request, key) => {
      if (request === "put" && key.includes("/manifests/")) await late.passed;
    };
    world.write(0, 70_000, 2);
    await world.pass(1000);
    const { volume } = await world.open();
    for (let count = 0; count < 4; count += 1) world.write(0, 70_000, 3 + count);
    await world.pass(2000);
    const archived = volume.manifest()?.archivedLsn;
    expect(archived).toBe(world.lastLsn);
    late.open();
    await world.pass(1000);
    const latest = (await world.manifests()).at(-1) as VolumeManifest;
    expect(latest).toMatchObject({ archiverEpoch: 2, archivedLsn: archived });
    await world.expectNoDanglingName("late");
    await world.expectPoints(0, "late");
    paused.store.left = 0;
    const next = await world.open();
    expect(next.volume.manifest()?.archivedLsn).toBe(archived);
  });

  test("another object under the next manifest's key stops the archiver", async () => {
    const world = new ArchiveWorld(36, diskBytes);
    const { volume } = await world.open();
    world.write(0, 70_000, 1);
    await world.pass(1000);
    const taken = { ...(volume.manifest() as VolumeManifest), number: 2 };
    await world.bucket.put(manifestKey(taken), encodeManifest(taken));
    world.write(0, 70_000, 2);
    await world.pass(1000);
    expect(volume.status()).toMatchObject({ state: "stopped", error: { kind: "Fenced" } });
  });
});
