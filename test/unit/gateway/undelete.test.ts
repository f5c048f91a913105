/*
 * A volume that comes back from the bucket (docs/specs/retention.md, "Deleted volumes"): the process ends before each of its steps.
 * After the next start it is deleted as before and can be undeleted again, or it is served and the bucket says so.
 */
import { describe, expect, test } from "vitest";
import { newHistoryRecord } from "#shared/domain/history-record.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { HistoryFile } from "../../../services/gateway/engine/history-file.ts";
import type { VolumeHost } from "../../../services/gateway/engine/volume-host.ts";
import { PastWorld } from "./past-world.ts";

const record: VolumeRecord = {
  id: "00000000000000aa",
  name: "disk0",
  sizeBytes: 4096,
  durability: "write",
  createdAtMs: 0,
  state: "active",
};

class Undeletion {
  readonly world = new PastWorld();
  /** What the bucket's newest manifest says. */
  private manifest: { deletedAtMs: number | null } = { deletedAtMs: 5 };
  lines = 0;

  constructor() {
    this.world.manifestOf("disk0", this.manifest);
  }

  /** As the rescuer and services/gateway/rescued-volume.ts do it. */
  async run(host: VolumeHost): Promise<void> {
    await host.bringBack(record, async (paths) => {
      await this.world.step("take disk0");
      this.lines += 1;
      await HistoryFile.create(
        this.world.disk(),
        `${paths.directory}/history.json`,
        newHistoryRecord(record.id, 4096),
      );
      await this.world.step("files disk0");
    });
  }

  get deletedAtMs(): number | null {
    return this.world.present("disk0").deletedAtMs ?? null;
  }
}

const names = (host: VolumeHost): readonly string[] => host.list().map((one) => one.name);

describe("an undelete", () => {
  test("tells the bucket last, behind the catalogue", async () => {
    const undeletion = new Undeletion();
    const { world } = undeletion;
    const host = await world.serving();
    world.onPublish = () => world.calls.push(`catalogued ${names(host).join()}`);
    await undeletion.run(host);
    expect(world.calls).toEqual([
      "take disk0",
      "files disk0",
      "open disk0",
      "publish disk0",
      "catalogued disk0",
    ]);
    expect(undeletion.deletedAtMs).toBeNull();
  });

  test("a crash before each step leaves it deleted, or served with a bucket that says so", async () => {
    let [deleted, served] = [0, 0];
    for (let call = 1; ; call += 1) {
      const undeletion = new Undeletion();
      const { world } = undeletion;
      const first = await world.serving();
      world.crashAtCall = call;
      const ended = await undeletion.run(first).then(
        () => true,
        () => false,
      );
      const host = await world.restart();
      await world.pass(0);
      if (names(host).length === 0) {
        deleted += 1;
        expect(undeletion.deletedAtMs, `call ${call}`).toBe(5);
        await undeletion.run(host);
      } else served += 1;
      await world.pass(0);
      expect(names(host), `call ${call}`).toEqual(["disk0"]);
      expect(host.show("disk0").condition, `call ${call}`).toBe("serving");
      expect(undeletion.deletedAtMs, `call ${call}`).toBeNull();
      if (ended) break;
    }
    expect(deleted).toBeGreaterThan(8);
    expect(served).toBeGreaterThan(0);
  });

  test("that fails on its way leaves it deleted, and can be run again", async () => {
    for (const step of ["take disk0", "files disk0", "open disk0", "archiver disk0"]) {
      const undeletion = new Undeletion();
      const { world } = undeletion;
      const host = await world.serving();
      if (step === "archiver disk0") world.fencedAtOpen.add("disk0");
      else world.broken.add(step);
      await expect(undeletion.run(host), step).rejects.toThrow();
      expect(names(host)).toEqual([]);
      expect(undeletion.deletedAtMs, step).toBe(5);
      world.broken.clear();
      world.fencedAtOpen.clear();
      await undeletion.run(host);
      expect(undeletion.deletedAtMs, step).toBeNull();
    }
  });

  test("beside a bucket that does not answer in time: it is back, and the bucket is told when it answers", async () => {
    const undeletion = new Undeletion();
    const { world } = undeletion;
    const host = await world.serving();
    world.hanging.add("archiver disk0");
    const back = undeletion.run(host);
    await world.pass(30_000);
    await world.pass(30_000);
    await back;
    expect(names(host)).toEqual(["disk0"]);
    expect(undeletion.deletedAtMs).toBe(5);
    world.hanging.clear();
    await world.restart();
    await world.pass(0);
    expect(undeletion.deletedAtMs).toBeNull();
  });
});
