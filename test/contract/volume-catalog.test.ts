// Runs the catalogue contract on the adapters: the file (on the in-memory file store), a key table and memory. Also what only a file
// can do: survive a restart in a real directory, and be damaged there. Crashes in the middle of a replacement are the file
// store's own contract (replaceWhole).
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { NativeFileStore } from "#shared/adapters/file-store/native.ts";
import { MemoryKeys, MemoryKeyTable } from "#shared/adapters/key-table/memory.ts";
import { FileVolumeCatalog } from "#shared/adapters/volume-catalog/file.ts";
import { KeyTableCatalog } from "#shared/adapters/volume-catalog/key-table.ts";
import { emptyCatalogContent, MemoryVolumeCatalog } from "#shared/adapters/volume-catalog/memory.ts";
import { FileStoreError } from "#shared/domain/errors.ts";
import { encodeCatalog } from "#shared/formats/catalog.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import { aVolume, volumeCatalogContract } from "./volume-catalog.contract.ts";

/** The store with one replaceWhole that fails before it does anything. */
function breakable(store: FileStore): { readonly store: FileStore; readonly breakNextWrite: () => void } {
  let broken = false;
  const replaceWhole: FileStore["replaceWhole"] = async (path, content) => {
    if (!broken) return await store.replaceWhole(path, content);
    broken = false;
    throw new FileStoreError("replace", path, "EIO");
  };
  const wrapped = new Proxy(store, {
    get: (target, key): unknown => {
      if (key === "replaceWhole") return replaceWhole;
      const value: unknown = Reflect.get(target, key);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  return {
    store: wrapped,
    breakNextWrite: () => {
      broken = true;
    },
  };
}

volumeCatalogContract("memory", async () => {
  const content = emptyCatalogContent();
  return {
    reopen: () => new MemoryVolumeCatalog(content),
    breakNextWrite: () => {
      content.failNextWrite = new Error("no room");
    },
    seed: async (records) => {
      content.records = records;
    },
    close: async () => {},
  };
});

volumeCatalogContract("file on memory", async () => {
  const memory = new MemoryFileStore();
  await memory.makeDirectory("/data");
  const { store, breakNextWrite } = breakable(memory);
  return {
    reopen: () => new FileVolumeCatalog(store, "/data"),
    breakNextWrite,
    seed: async (records) => memory.replaceWhole("/data/catalog.json", encodeCatalog(records)),
    close: async () => memory.close(),
  };
});

volumeCatalogContract("key table", async () => {
  const keys = new MemoryKeys();
  const tables: MemoryKeyTable[] = [];
  return {
    reopen: () => {
      const table = new MemoryKeyTable(keys);
      tables.push(table);
      return new KeyTableCatalog(table);
    },
    breakNextWrite: () => {
      const table = tables.at(-1);
      if (table === undefined) return;
      const put = table.put.bind(table);
      table.put = async () => {
        table.put = put;
        throw new Error("no room");
      };
    },
    seed: async (records) => {
      await new MemoryKeyTable(keys).put("volumes", encodeCatalog(records), 0);
    },
    close: async () => {},
  };
});

describe("the catalogue of several machines", () => {
  const keys = new MemoryKeys();
  const open = async (): Promise<KeyTableCatalog> => {
    const catalog = new KeyTableCatalog(new MemoryKeyTable(keys));
    await catalog.load();
    return catalog;
  };

  test("changes made side by side are all kept, and a name is given once", async () => {
    const [one, two] = [await open(), await open()];
    await Promise.all([one.put(aVolume("a")), two.put(aVolume("b")), one.put(aVolume("c"))]);
    const sameName = two.put(aVolume("a", { id: "00000000000000aa" }));
    await expect(sameName).rejects.toMatchObject({ _tag: "VolumeExistsError" });
    const names = (await open()).list().map((record) => record.name);
    expect(names).toEqual(["a", "b", "c"]);
  });

  test("a change is made on what is stored by then, and brings nothing back that was removed", async () => {
    const [one, two] = [await open(), await open()];
    await one.put(aVolume("grows"));
    await two.load();
    const { id } = aVolume("grows");
    await one.change(id, (present) => ({ ...present, sizeBytes: 2 * present.sizeBytes }));
    await two.change(id, (present) => ({ ...present, reads: "strict" }));
    expect((await open()).get(id)).toEqual(aVolume("grows", { sizeBytes: 2 * 1024 ** 3, reads: "strict" }));
    await one.load();
    await one.remove(id);
    const late = two.change(id, (present) => ({ ...present, reads: "available" }));
    await expect(late).rejects.toMatchObject({ _tag: "UnknownVolumeError" });
    expect((await open()).get(id)).toBeNull();
  });

  test("what others change is taken in and told", async () => {
    const [one, two] = [await open(), await open()];
    const told = new Promise<void>((resolve) => {
      two.follow(
        () => {
          if (two.find("late") !== null) resolve();
        },
        (error) => expect.unreachable(error.message),
      );
    });
    await one.put(aVolume("late"));
    await told;
    expect(two.list().map((record) => record.name)).toEqual(one.list().map((record) => record.name));
    two.close();
  });
});

describe("the catalogue in a real directory", () => {
  const inDirectory = async (work: (directory: string, store: FileStore) => Promise<void>): Promise<void> => {
    const directory = mkdtempSync(join(tmpdir(), "varve-catalog-"));
    const store = new NativeFileStore();
    try {
      await work(directory, store);
    } finally {
      await store.close();
      rmSync(directory, { recursive: true });
    }
  };

  test("survives a restart", async () => {
    await inDirectory(async (directory, store) => {
      const catalog = new FileVolumeCatalog(store, directory);
      await catalog.load();
      await catalog.put(aVolume("disk0"));
      await catalog.put(aVolume("disk1", { durability: "flush" }));
      const again = new FileVolumeCatalog(store, directory);
      expect(await again.load()).toEqual([aVolume("disk0"), aVolume("disk1", { durability: "flush" })]);
    });
  });

  test("each damaged byte is refused, and the file stays as it was", async () => {
    await inDirectory(async (directory, store) => {
      const catalog = new FileVolumeCatalog(store, directory);
      await catalog.load();
      await catalog.put(aVolume("disk0"));
      const path = join(directory, "catalog.json");
      const good = readFileSync(path);
      for (let at = 0; at < good.length; at += 7) {
        const bad = Buffer.from(good);
        bad[at] = (bad[at] ?? 0) ^ 0x04;
        writeFileSync(path, bad);
        const failure = await new FileVolumeCatalog(store, directory).load().catch((error: unknown) => error);
        expect(failure, `byte ${at}`).toMatchObject({ kind: "Corrupt" });
        expect(readFileSync(path).equals(bad)).toBe(true);
      }
    });
  });
});
