// Check, adopt and discard of images whose bytes are partly in the bucket, and of volumes whose own log is not the whole disk:
// refused with nothing changed and a way out, counted by check.
import { expect, test } from "vitest";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { RawFileImage } from "#shared/adapters/replica-image/raw-file.ts";
import { volumePaths } from "#shared/domain/data-layout.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { WriteLog } from "#shared/ports/write-log.ts";
import { adoptImage } from "../../../services/storage/engine/image-adopt.ts";
import { checkImage } from "../../../services/storage/engine/image-check.ts";
import { discardImage } from "../../../services/storage/engine/image-discard.ts";
import type { LogItem, RepairSetup } from "../../../services/storage/engine/image-files.ts";
import { SteppedClock } from "../file-store/stepped-clock.ts";

const volume: VolumeRecord = {
  id: "5ca1ab1e00c0ffee",
  name: "kept",
  sizeBytes: 9_000_448,
  durability: "write",
  createdAtMs: 1,
  state: "active",
};
const paths = volumePaths("/data", "kept");

class UnopenedLog implements WriteLog {
  open(): Promise<never> {
    return Promise.reject(new Error("a refused repair does not open the log"));
  }
  async close(): Promise<void> {}
}

async function* emptyLog(): AsyncGenerator<LogItem, void, undefined> {
  yield { kind: "summary", line: null, oldestLsn: 0, lastLsn: 0, diskBytes: 0, refusal: null };
}

async function setUp(remote: boolean): Promise<RepairSetup> {
  const store = new MemoryFileStore();
  await store.makeDirectory(paths.directory);
  const begin = remote ? { remote: { volumeId: "00000000000000aa", lsn: 9 } } : {};
  const { id: volumeId, sizeBytes } = volume;
  await RawFileImage.create({ store, directory: paths.directory, volumeId, sizeBytes, ...begin });
  return { store, clock: new SteppedClock(1), volume, paths, log: new UnopenedLog(), inspectLog: emptyLog };
}

async function everything(store: FileStore): Promise<string[]> {
  const names = await store.list(paths.directory);
  const facts = await Promise.all(names.map((name) => store.facts(`${paths.directory}/${name}`)));
  return names.map((name, index) => `${name} ${facts[index]?.mtimeNs} ${facts[index]?.sizeBytes}`);
}

test("a partial image is not adopted and not discarded, and nothing changes", async () => {
  const setup = await setUp(true);
  const before = await everything(setup.store);
  for (const repair of [adoptImage, discardImage]) {
    await expect(repair(setup)).rejects.toMatchObject({
      _tag: "ImagePartial",
      kind: "Invalid",
      message: "/data/volumes/kept/disk.raw.partial holds only a part of the disk: the rest is in the bucket",
    });
  }
  expect(await everything(setup.store)).toEqual(before);
});

test("check counts its extents, under its own name", async () => {
  const report = await checkImage(await setUp(true));
  expect(report.fields).toMatchObject({
    image: "/data/volumes/kept/disk.raw.partial",
    localExtents: 0,
    remoteExtents: 2,
    partialExtents: 1,
  });
});

test("a clone is not built from its own log", async () => {
  const setup = await setUp(false);
  const before = await everything(setup.store);
  const origin = { volumeId: "00000000000000aa", name: "parent", lsn: 9 };
  await expect(discardImage({ ...setup, origin })).rejects.toMatchObject({
    _tag: "LogOfClone",
    kind: "Invalid",
  });
  expect(await everything(setup.store)).toEqual(before);
});
