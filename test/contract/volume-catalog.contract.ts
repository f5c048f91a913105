// The contract of the VolumeCatalog port: one suite for every adapter (shared/ports/volume-catalog.ts is its text).
// Called by volume-catalog.test.ts with a maker per adapter; `reopen` gives a new object on what the last one stored,
// as after a restart, and `breakNextWrite` makes the next store operation fail.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { limits } from "#shared/domain/limits.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";

export interface CatalogSubject {
  reopen(): VolumeCatalog;
  breakNextWrite(): void;
  /** What an earlier life left there. */
  seed(records: readonly VolumeRecord[]): Promise<void>;
  close(): Promise<void>;
}

export function aVolume(name: string, changes: Partial<VolumeRecord> = {}): VolumeRecord {
  const id = Buffer.from(name).toString("hex").padEnd(16, "0").slice(0, 16);
  return {
    id,
    name,
    sizeBytes: 1024 ** 3,
    durability: "write",
    createdAtMs: 1_790_000_000_000,
    state: "active",
    ...changes,
  };
}

const named = (records: readonly VolumeRecord[]): string[] => records.map((record) => record.name);
const tagOf = async (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "no error",
    (error: { _tag?: string; message: string }) => error._tag ?? error.message,
  );

export function volumeCatalogContract(what: string, make: () => Promise<CatalogSubject>): void {
  describe(`VolumeCatalog: ${what}`, () => {
    let subject: CatalogSubject;
    beforeEach(async () => {
      subject = await make();
    });
    afterEach(async () => {
      await subject.close();
    });
    const opened = async (): Promise<VolumeCatalog> => {
      const catalog = subject.reopen();
      await catalog.load();
      return catalog;
    };

    test("is empty and does not exist before the first write, and exists after an empty save", async () => {
      const catalog = await opened();
      expect(catalog.list()).toEqual([]);
      expect(catalog.exists()).toBe(false);
      await catalog.save();
      expect((await opened()).exists()).toBe(true);
      expect((await opened()).list()).toEqual([]);
    });

    test("keeps what was put, sorted by name, over a restart", async () => {
      const catalog = await opened();
      await catalog.put(aVolume("web", { durability: "flush" }));
      await catalog.put(aVolume("db", { state: "creating" }));
      expect(named(catalog.list())).toEqual(["db", "web"]);
      expect((await opened()).list()).toEqual(catalog.list());
      expect((await opened()).find("web")?.durability).toBe("flush");
      expect((await opened()).find("none")).toBeNull();
    });

    test("replaces the record with the same id and refuses a second one with the same name", async () => {
      const catalog = await opened();
      await catalog.put(aVolume("disk0"));
      await catalog.put(aVolume("disk0", { sizeBytes: 4096 }));
      expect(catalog.list()).toEqual([aVolume("disk0", { sizeBytes: 4096 })]);
      const twin = aVolume("disk0", { id: "ffffffffffffffff" });
      expect(await tagOf(catalog.put(twin))).toBe("VolumeExistsError");
      expect((await opened()).list()).toEqual(catalog.list());
    });

    test("refuses bad names and sizes and changes nothing", async () => {
      const catalog = await opened();
      await catalog.save();
      for (const name of ["", "Disk", "../up", "a/b", "-x", "x".repeat(64), "a b", "ü"]) {
        expect(await tagOf(catalog.put(aVolume(name))), name).toBe("VolumeNameError");
      }
      for (const sizeBytes of [0, -512, 1000, 1.5, 2 ** 50 + 512, Number.NaN]) {
        expect(await tagOf(catalog.put(aVolume("disk0", { sizeBytes }))), String(sizeBytes)).toBe(
          "VolumeSizeError",
        );
      }
      expect((await opened()).list()).toEqual([]);
    });

    test("removes by id, and removing what is not there is nothing", async () => {
      const catalog = await opened();
      await catalog.put(aVolume("a"));
      await catalog.put(aVolume("b"));
      await catalog.remove(aVolume("a").id);
      await catalog.remove(aVolume("a").id);
      expect(named((await opened()).list())).toEqual(["b"]);
    });

    test("makes changes in the order of calls, though nobody waited between them", async () => {
      const catalog = await opened();
      const names = Array.from({ length: 20 }, (_, index) => `disk${index}`);
      await Promise.all(names.map(async (name) => catalog.put(aVolume(name, { id: idOf(name) }))));
      await Promise.all([catalog.put(aVolume("last")), catalog.remove(aVolume("last").id)]);
      expect(named((await opened()).list())).toEqual([...names].sort());
    });

    test("a failed write leaves the state as it was, and the next one works", async () => {
      const catalog = await opened();
      await catalog.put(aVolume("kept"));
      subject.breakNextWrite();
      expect(await tagOf(catalog.put(aVolume("lost")))).not.toBe("no error");
      expect(named(catalog.list())).toEqual(["kept"]);
      expect(named((await opened()).list())).toEqual(["kept"]);
      await catalog.put(aVolume("next"));
      expect(named((await opened()).list())).toEqual(["kept", "next"]);
    });

    test("a list taken before a change does not move", async () => {
      const catalog = await opened();
      const before = catalog.list();
      await catalog.put(aVolume("a"));
      expect(before).toEqual([]);
    });

    test("holds at most limits.volumesMax volumes", async () => {
      const names = Array.from({ length: limits.volumesMax }, (_, index) => `v${index}`);
      const all = names.map((name) => aVolume(name, { id: idOf(name) }));
      await subject.seed(all.slice(8));
      const catalog = await opened();
      await Promise.all(all.slice(0, 8).map(async (volume) => catalog.put(volume)));
      expect(await tagOf(catalog.put(aVolume("one-more")))).toBe("CatalogFullError");
      await catalog.put(aVolume("v7", { id: idOf("v7"), sizeBytes: 512 }));
      expect((await opened()).list().length).toBe(limits.volumesMax);
    });
  });
}

function idOf(name: string): string {
  return Buffer.from(name.padStart(8, "_")).toString("hex").slice(0, 16);
}
