// A rollback that takes back a rollback, when the hot log of all of it has gone already: every point, from before, between and behind
// them, opens from the bucket alone.
import { expect, it } from "vitest";
import { Histories } from "#shared/adapters/history/histories.ts";
import { MemoryObjectStore } from "#shared/adapters/object-store/memory.ts";
import type { FoldedDisk } from "#shared/domain/fold.ts";
import { MadeVolume } from "../../tools/made-bucket.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";
import { SteppedClock } from "../file-store/stepped-clock.ts";
import { expectDisk } from "./history-world.ts";

it("a rollback of a rollback with its log released: every point is the disk as it was", async () => {
  const clock = new SteppedClock(1);
  const store = new MemoryObjectStore(clock);
  const random = new SeededRandom(3);
  const volume = new MadeVolume(store, { volumeId: "00000000000000a1", sizeBytes: 128 * 1024 });
  const write = (value: number): void => volume.write(value * 6000, Buffer.alloc(9000, value));
  for (let value = 1; value <= 5; value += 1) write(value);
  volume.rollback(2);
  for (let value = 6; value <= 8; value += 1) write(value);
  // Back to before the first rollback, whose own disk is not on the way any more.
  volume.rollback(5);
  for (let value = 9; value <= 11; value += 1) write(value);
  await volume.seal(2);
  await volume.publish();
  volume.hotLog.release(volume.lastLsn + 1);
  expect(volume.hotLog.oldestLsn).toBeGreaterThan(volume.archivedLsn);

  const histories = new Histories({ store, clock });
  const history = await histories.fromBucket(volume.volumeId);
  for (let lsn = 1; lsn <= volume.archivedLsn; lsn += 1) {
    const source = await history.open(lsn);
    await expectDisk(source, volume.past[lsn] as FoldedDisk, random, `LSN ${lsn}`);
    await source.close();
  }
  await histories.close();
});
