// What every FileStore promises, whatever is below it: exact bytes, holes, order of applies, names, atomic replacement,
// locks, errors by errno name. Run by file-store.test.ts on the native store, the memory store, the simulated disk and the
// decorator that drops what was not synced.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FileStoreError } from "#shared/domain/errors.ts";
import type { BlockFile, FileOperation, FileStore } from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";

export interface FileStoreBench {
  readonly store: FileStore;
  /** An existing, empty directory. */
  readonly directory: string;
  dispose(): Promise<void>;
}

const KiB = 1024;

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    expect(error).toBeInstanceOf(FileStoreError);
    return (error as FileStoreError).code;
  }
  return "no error";
}

function pattern(slab: Slab, seed: number): void {
  for (let index = 0; index < slab.bytes.length; index += 1) slab.bytes[index] = (index * 7 + seed) % 251;
}

export function fileStoreContract(name: string, setUp: () => Promise<FileStoreBench>): void {
  describe(`file store: ${name}`, () => {
    let bench: FileStoreBench;
    let store: FileStore;
    let slab: Slab;
    let into: Slab;
    const path = (last: string): string => `${bench.directory}/${last}`;
    const openNew = (last: string, access: "buffered" | "direct" = "buffered"): Promise<BlockFile> =>
      store.open(path(last), { create: true, access });
    const bytesOf = async (file: BlockFile, offset: number, length: number): Promise<Buffer> => {
      const aligned = Math.ceil(length / 4096) * 4096;
      into.bytes.fill(0xee);
      await file.read(into, 0, aligned, offset);
      return Buffer.from(into.bytes.subarray(0, length));
    };

    beforeEach(async () => {
      bench = await setUp();
      ({ store } = bench);
      slab = store.allocateSlab(256 * KiB);
      into = store.allocateSlab(256 * KiB);
      pattern(slab, 1);
    });
    afterEach(() => bench.dispose());

    dataContract({
      openNew: (last, access) => openNew(last, access),
      bytesOf,
      slab: () => slab,
      into: () => into,
    });

    test("names: open needs create, list is sorted, rename and remove move and take the content", async () => {
      expect(await codeOf(store.open(path("none"), { access: "buffered" }))).toBe("ENOENT");
      expect(await codeOf(store.remove(path("none")))).toBe("ENOENT");
      expect(await codeOf(store.rename(path("none"), path("b")))).toBe("ENOENT");
      expect(await store.facts(path("none"))).toBeNull();
      expect(await store.readWhole(path("none"))).toBeNull();
      expect(await store.list(path("nowhere"))).toEqual([]);
      const file = await openNew("b");
      await file.write([{ slab, start: 0, length: 100 }], 0);
      await file.close();
      await (await openNew("a")).close();
      await store.makeDirectory(path("c/d/e"));
      await store.makeDirectory(path("c/d/e"));
      // Several that lack the same parents, at once.
      const beside = ["g", "h", "i", "j"].map((name) => path(`c/x/y/${name}`));
      await Promise.all(beside.map((directory) => store.makeDirectory(directory)));
      expect(await store.list(path("c/x/y"))).toEqual(["g", "h", "i", "j"]);
      await store.removeTree(path("c/x"));
      expect(await store.list(bench.directory)).toEqual(["a", "b", "c"]);
      expect(await store.list(path("c/d"))).toEqual(["e"]);
      await store.rename(path("b"), path("c/d/e/f"));
      await store.syncDirectory(path("c/d/e"));
      await store.syncDirectory(bench.directory);
      expect(await store.readWhole(path("c/d/e/f"))).toEqual(Buffer.from(slab.bytes.subarray(0, 100)));
      expect(await store.list(bench.directory)).toEqual(["a", "c"]);
      await store.remove(path("a"));
      await store.removeTree(path("c"));
      await store.removeTree(path("c"));
      expect(await store.list(bench.directory)).toEqual([]);
      expect(await codeOf(store.syncDirectory(path("c")))).toBe("ENOENT");
    });

    test("replaceWhole replaces, also when several follow each other at once", async () => {
      await store.replaceWhole(path("small"), Buffer.from("one"));
      expect((await store.readWhole(path("small")))?.toString()).toBe("one");
      await Promise.all(
        ["two", "three", "four"].map((text) => store.replaceWhole(path("small"), Buffer.from(text))),
      );
      expect(["two", "three", "four"]).toContain((await store.readWhole(path("small")))?.toString());
      expect(await store.list(bench.directory)).toEqual(["small"]);
      expect(await codeOf(store.replaceWhole(path("no/where"), Buffer.from("x")))).toBe("ENOENT");
    });

    test("facts: size, identity and times follow the content", async () => {
      const file = await openNew("facts");
      await file.write([{ slab, start: 0, length: 5000 }], 0);
      await file.sync();
      const before = await file.facts();
      expect(before.sizeBytes).toBe(5000);
      expect(before.allocatedBytes).toBeGreaterThanOrEqual(4096);
      expect((await store.facts(path("facts")))?.inode).toBe(before.inode);
      await new Promise((resolve) => {
        setTimeout(resolve, 15);
      });
      await file.write([{ slab, start: 0, length: 1 }], 0);
      await file.sync();
      const after = await file.facts();
      expect(after.inode).toBe(before.inode);
      expect(after.mtimeNs).toBeGreaterThan(before.mtimeNs);
      expect(after.ctimeNs).toBeGreaterThan(before.ctimeNs);
      await file.close();
      await store.replaceWhole(path("facts"), Buffer.from("other"));
      expect((await store.facts(path("facts")))?.inode).not.toBe(before.inode);
    });

    test("locks: one image writer and one directory holder at a time", async () => {
      const first = await openNew("image");
      const second = await openNew("image");
      first.lockAsImageWriter();
      expect(() => second.lockAsImageWriter()).toThrowError(expect.objectContaining({ code: "EAGAIN" }));
      await first.close();
      second.lockAsImageWriter();
      await second.close();

      const lock = await store.lockDirectory(bench.directory);
      const refused = await store.lockDirectory(bench.directory).catch((error: unknown) => error);
      expect(refused).toMatchObject({
        code: "EAGAIN",
        kind: "Retry",
        hint: expect.stringMatching(/Process \d+/),
      });
      await lock.release();
      await (await store.lockDirectory(bench.directory)).release();
    });

    test("free space is told and slabs survive a shrink", async () => {
      const space = await store.freeSpace(bench.directory);
      expect(space.freeBytes).toBeGreaterThan(0);
      expect(space.totalBytes).toBeGreaterThanOrEqual(space.freeBytes);
      store.shrinkSlab(slab);
      slab.bytes.fill(9);
      expect(slab.bytes[100]).toBe(9);
    });

    test("a closed file refuses every call with EBADF", async () => {
      const file = await openNew("closed");
      await file.close();
      await file.close();
      expect(await codeOf(file.read(into, 0, 4096, 0))).toBe("EBADF");
      expect(await codeOf(file.write([{ slab, start: 0, length: 4096 }], 0))).toBe("EBADF");
      expect(await codeOf(file.sync())).toBe("EBADF");
      expect(await codeOf(file.applyAll([{ kind: "truncate", sizeBytes: 5 }]))).toBe("EBADF");
      expect(() => file.readInline(into, 0, 1, 0)).toThrowError(expect.objectContaining({ code: "EBADF" }));
    });
  });
}

interface DataBench {
  readonly openNew: (last: string, access?: "buffered" | "direct") => Promise<BlockFile>;
  readonly bytesOf: (file: BlockFile, offset: number, length: number) => Promise<Buffer>;
  readonly slab: () => Slab;
  readonly into: () => Slab;
}

function dataContract(bench: DataBench): void {
  const { openNew, bytesOf } = bench;

  for (const access of ["buffered", "direct"] as const) {
    test(`${access}: gathered writes of every sort come back, and past the end is zero`, async () => {
      const slab = bench.slab();
      const file = await openNew("data", access);
      const piece = (start: number, length: number) => ({ slab, start: start * KiB, length: length * KiB });
      await file.write([piece(0, 4), piece(64, 8)], 0);
      await file.writeDurable([piece(16, 12)], 12 * KiB);
      file.writeInline([piece(100, 4)], 24 * KiB);
      file.writeDurableInline([piece(8, 4), piece(4, 4)], 28 * KiB);
      await file.sync();
      const expected = Buffer.concat(
        [piece(0, 4), piece(64, 8), piece(16, 12), piece(100, 4), piece(8, 4), piece(4, 4)].map((part) =>
          slab.bytes.subarray(part.start, part.start + part.length),
        ),
      );
      expect(expected.equals(await bytesOf(file, 0, expected.length))).toBe(true);
      expect((await file.facts()).sizeBytes).toBe(36 * KiB);
      const tail = await bytesOf(file, 32 * KiB, 16 * KiB);
      expect(tail.subarray(0, 4 * KiB).equals(slab.bytes.subarray(4 * KiB, 8 * KiB))).toBe(true);
      expect(tail.subarray(4 * KiB).every((byte) => byte === 0)).toBe(true);
      await file.close();
    });
  }

  test("a gather of more pieces than one call takes arrives whole", async () => {
    const slab = bench.slab();
    const file = await openNew("many");
    const pieces = Array.from({ length: 700 }, (_, index) => ({
      slab,
      start: (index * 331) % 200_000,
      length: 1 + (index % 50),
    }));
    const expected = Buffer.concat(
      pieces.map(({ start, length }) => slab.bytes.subarray(start, start + length)),
    );
    await file.write(pieces, 3);
    expect(expected.equals(await bytesOf(file, 3, expected.length))).toBe(true);
    file.writeInline(pieces, 50_001);
    expect(expected.equals(await bytesOf(file, 50_001, expected.length))).toBe(true);
    await file.close();
  });

  test("inline reads return what they can, exactly, or say that they can't", async () => {
    const slab = bench.slab();
    const into = bench.into();
    const file = await openNew("inline");
    await file.write([{ slab, start: 0, length: 10_000 }], 0);
    for (const [offset, length] of [
      [0, 10_000],
      [4_095, 3],
      [9_000, 5_000],
      [10_000, 10],
    ] as const) {
      into.bytes.fill(0xee);
      const count = file.readInline(into, 7, length, offset);
      expect(count).toBeLessThanOrEqual(Math.max(0, Math.min(length, 10_000 - offset)));
      if (count > 0) {
        expect(into.bytes.subarray(7, 7 + count).equals(slab.bytes.subarray(offset, offset + count))).toBe(
          true,
        );
      }
      expect(into.bytes[6]).toBe(0xee);
      expect(into.bytes[7 + Math.max(count, 0)]).toBe(0xee);
    }
    await file.close();
  });

  test("an apply carries out its operations in order, unaligned edges included", async () => {
    const slab = bench.slab();
    const file = await openNew("apply");
    const sizeBytes = 200_000;
    const model = Buffer.alloc(sizeBytes);
    await file.truncate(sizeBytes);
    const operations: FileOperation[] = [
      { kind: "write", piece: { slab, start: 10, length: 150_000 }, offset: 1 },
      { kind: "punch", offset: 4_000, length: 20_000 },
      { kind: "write", piece: { slab, start: 0, length: 513 }, offset: 5_000 },
      { kind: "zero", offset: 100_001, length: 9_999 },
      { kind: "punch", offset: 150_000, length: 50_000 },
      { kind: "write", piece: { slab, start: 77, length: 5 }, offset: sizeBytes - 5 },
    ];
    for (const operation of operations) {
      if (operation.kind === "write") {
        const { start, length } = operation.piece;
        slab.bytes.copy(model, operation.offset, start, start + length);
      } else if (operation.kind !== "truncate") {
        model.fill(0, operation.offset, operation.offset + operation.length);
      }
    }
    await file.applyAll([]);
    await file.applyAll(operations);
    expect(model.equals(await bytesOf(file, 0, sizeBytes))).toBe(true);
    expect((await file.facts()).sizeBytes).toBe(sizeBytes);
    await file.applyAll([
      { kind: "truncate", sizeBytes: 120_000 },
      { kind: "truncate", sizeBytes },
    ]);
    model.fill(0, 120_000);
    expect(model.equals(await bytesOf(file, 0, sizeBytes))).toBe(true);
    await file.writeBack(0, sizeBytes);
    await file.sync();
    const { mtimeNs } = await file.facts();
    await file.syncWithTimes();
    expect((await file.facts()).mtimeNs).toBe(mtimeNs);
    await file.close();
  });

  test("holes: a new size is one hole, a write makes data, a punch takes it back", async () => {
    const slab = bench.slab();
    const file = await openNew("holes");
    const MiB = 1024 * KiB;
    await file.truncate(64 * MiB);
    expect(file.nextData(0)).toBe(-1);
    expect(file.nextHole(0)).toBe(0);
    expect(file.nextHole(64 * MiB)).toBe(64 * MiB);
    expect(file.nextData(64 * MiB)).toBe(-1);
    await file.write([{ slab, start: 0, length: 64 * KiB }], 16 * MiB);
    expect(file.nextData(0)).toBe(16 * MiB);
    expect(file.nextData(16 * MiB + 5)).toBe(16 * MiB + 5);
    await file.sync();
    expect(file.nextHole(16 * MiB)).toBe(16 * MiB + 64 * KiB);
    const before = (await file.facts()).allocatedBytes;
    await file.applyAll([{ kind: "punch", offset: 0, length: 64 * MiB }]);
    await file.sync();
    expect(file.nextData(0)).toBe(-1);
    expect((await file.facts()).allocatedBytes).toBeLessThan(before);
    await file.allocate(0, MiB);
    expect((await file.facts()).allocatedBytes).toBeGreaterThanOrEqual(MiB);
    expect((await file.facts()).sizeBytes).toBe(64 * MiB);
    expect((await bytesOf(file, 0, 4096)).every((byte) => byte === 0)).toBe(true);
    await file.truncate(0);
    await file.sync();
    expect((await file.facts()).allocatedBytes).toBe(0);
    await file.close();
  });

  test("an apply that fails names the operation and leaves the ones before it done", async () => {
    const slab = bench.slab();
    const file = await openNew("fails");
    await file.truncate(100);
    const failure: unknown = await file
      .applyAll([
        { kind: "write", piece: { slab, start: 0, length: 50 }, offset: 0 },
        { kind: "truncate", sizeBytes: -1 },
        { kind: "write", piece: { slab, start: 0, length: 50 }, offset: 50 },
      ])
      .catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: "EINVAL", operation: "apply truncate" });
    const bytes = await bytesOf(file, 0, 100);
    expect(bytes.subarray(0, 50).equals(slab.bytes.subarray(0, 50))).toBe(true);
    expect(bytes.subarray(50).every((byte) => byte === 0)).toBe(true);
    await file.close();
  });

  test("many calls at once all end, reads beside syncs", async () => {
    const slab = bench.slab();
    const into = bench.into();
    const file = await openNew("crowd");
    await file.write([{ slab, start: 0, length: 200 * KiB }], 0);
    const reads = Array.from({ length: 50 }, (_, index) => file.read(into, index * 4096, 4096, index * 4096));
    await Promise.all([...reads, file.sync(), file.sync()]);
    expect(into.bytes.subarray(0, 200 * KiB).equals(slab.bytes.subarray(0, 200 * KiB))).toBe(true);
    const last = file.read(into, 0, 4096, 0);
    await file.close();
    await last.catch(() => undefined);
  });
}
