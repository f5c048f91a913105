// What a move into a cluster refuses and how it stops, against the real NBD server on memory exports: the volume stays where it was,
// unmarked, and the error says what to do. By real processes, killed at every step: test/cluster/move.test.ts.
import { afterEach, expect, test } from "vitest";
import { MemoryVolumeCatalog } from "#shared/adapters/volume-catalog/memory.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { HostedVolume } from "../../../services/gateway/engine/hosted-volume.ts";
import { MovedVolumes } from "../../../services/gateway/engine/moved-volumes.ts";
import { type CopyFigures, copyIntoCluster, type MoveTarget } from "../../../services/gateway/volume-move.ts";
import { FastClock } from "../../tools/fast-clock.ts";
import { MemoryExport } from "../../tools/memory-export.ts";
import { type Gateway, heapSlabs, startGateway } from "../nbd/gateway.ts";

const MiB = 2 ** 20;
const sizeBytes = 3 * MiB;
const record: VolumeRecord = {
  id: "00112233aabbccdd",
  name: "disk0",
  sizeBytes,
  durability: "write",
  createdAtMs: 0,
  state: "active",
};
const gateways: Gateway[] = [];
afterEach(() => {
  for (const gateway of gateways.splice(0)) gateway.close();
});

/** Half a minute of waiting is over at once. */
class HurriedClock extends FastClock {
  override monotonicMs(): number {
    return super.monotonicMs() * 1000;
  }
}

function source(): MemoryExport {
  const disk = new MemoryExport("disk0", { sizeBytes });
  for (const [at, value] of [
    [0, 1],
    [MiB + 4096, 2],
    [sizeBytes - 4096, 3],
  ] as const) {
    disk.data.fill(value, at, at + 4096);
    disk.allocated[at / 4096] = 1;
  }
  return disk;
}

async function gatewayOf(target: MemoryExport | null): Promise<string> {
  const gateway = await startGateway(target === null ? [] : [target], { tcp: true, slabs: heapSlabs });
  gateways.push(gateway);
  return gateway.address;
}

async function copy(
  disk: MemoryExport,
  gateway: string,
  more: Partial<MoveTarget> = {},
): Promise<CopyFigures> {
  return await copyIntoCluster(
    { record, disk, allocatedBytes: 0 },
    {
      gateway,
      fresh: true,
      clock: new HurriedClock(),
      allocateSlab: (bytes) => heapSlabs.allocateSlab(bytes),
      onProgress: () => undefined,
      failpoint: () => undefined,
      ...more,
    },
  );
}

test("every byte is copied and compared; what a fresh target never had stays thin", async () => {
  const [disk, target] = [source(), new MemoryExport("arriving:disk0", { sizeBytes })];
  const gateway = await gatewayOf(target);
  expect(await copy(disk, gateway)).toEqual({ copiedBytes: 3 * 4096, comparedBytes: 3 * 4096 });
  expect(target.data.equals(disk.data)).toBe(true);
  target.data.fill(9, 2 * MiB, 2 * MiB + 10);
  const again = await copy(disk, gateway, { fresh: false });
  expect(again.comparedBytes).toBe(sizeBytes);
  expect(again.copiedBytes).toBeLessThan(MiB);
  expect(target.data.equals(disk.data)).toBe(true);
});

test("no gateway, or one that does not know the volume: MoveGatewayError", async () => {
  for (const gateway of ["127.0.0.1:1", await gatewayOf(null)]) {
    await expect(copy(source(), gateway)).rejects.toMatchObject({
      _tag: "MoveGatewayError",
      kind: "Retry",
      message: expect.stringContaining(gateway),
      hint: expect.stringContaining("--gateway"),
    });
  }
});

test("a gateway that goes away in the middle: MoveStoppedError, and the same command goes on", async () => {
  const [disk, target] = [source(), new MemoryExport("arriving:disk0", { sizeBytes })];
  const gateway = await gatewayOf(target);
  target.holdAll = true;
  const copying = copy(disk, gateway);
  await expect.poll(() => target.calls.length).toBeGreaterThan(0);
  for (const one of gateways.splice(0)) one.close();
  await expect(copying).rejects.toMatchObject({
    _tag: "MoveStoppedError",
    kind: "Retry",
    hint: expect.stringContaining("Run the command again"),
  });
  target.holdAll = false;
  await copy(disk, await gatewayOf(target), { fresh: false });
  expect(target.data.equals(disk.data)).toBe(true);
});

test("a target without room says so with its own kind", async () => {
  const target = new MemoryExport("arriving:disk0", { sizeBytes });
  target.failWrites = new VarveError("LogFull", "Full", "no room");
  await expect(copy(source(), await gatewayOf(target))).rejects.toMatchObject({ kind: "Full" });
});

test("a difference stops the move at once, instead of comparing the rest first", async () => {
  const bytes = 48 * MiB;
  const disk = new MemoryExport("disk0", { sizeBytes: bytes });
  disk.data.fill(1);
  disk.allocated.fill(1);
  const target = new MemoryExport("arriving:disk0", { sizeBytes: bytes });
  const gateway = await gatewayOf(target);
  const read = target.read.bind(target);
  target.read = (offset, ...rest) => {
    if (offset === 0) target.data[100] = 77;
    return read(offset, ...rest);
  };
  const copying = copyIntoCluster(
    { record: { ...record, sizeBytes: bytes }, disk, allocatedBytes: 0 },
    {
      gateway,
      fresh: true,
      clock: new HurriedClock(),
      allocateSlab: (length) => heapSlabs.allocateSlab(length),
      onProgress: () => undefined,
      failpoint: () => undefined,
    },
  );
  await expect(copying).rejects.toMatchObject({ _tag: "MoveDiffersError", fields: { offset: 0 } });
  expect(target.calls.filter((call) => call.startsWith("read")).length).toBeLessThan(40);
});

test("bytes that come back differently: MoveDiffersError says which", async () => {
  const target = new MemoryExport("arriving:disk0", { sizeBytes });
  const read = target.read.bind(target);
  target.read = (offset, length, slab, start, done) => {
    if (offset <= MiB + 5000 && offset + length > MiB + 5000) target.data[MiB + 5000] = 77;
    return read(offset, length, slab, start, done);
  };
  await expect(copy(source(), await gatewayOf(target))).rejects.toMatchObject({
    _tag: "MoveDiffersError",
    kind: "Corrupt",
    hint: expect.stringContaining("was not moved"),
    fields: { name: "disk0", offset: MiB + 4096, length: 4096 },
  });
});

test("another size there: ArrivalDiffersError, before a byte is written", async () => {
  const target = new MemoryExport("arriving:disk0", { sizeBytes: 2 * sizeBytes });
  await expect(copy(source(), await gatewayOf(target))).rejects.toMatchObject({
    _tag: "ArrivalDiffersError",
    kind: "Invalid",
  });
  expect(target.calls.filter((call) => call.startsWith("write"))).toEqual([]);
});

/** Of a hosted volume, what a move asks. */
function hosted(localExtents: number, disk: MemoryExport): HostedVolume {
  const session = { status: () => ({ image: { allocatedBytes: 4096 } }) };
  return {
    record,
    name: record.name,
    withSession: async (work: (one: unknown) => Promise<unknown>) => await work(session),
    residency: () => ({ extents: 4, localExtents }),
    openExport: () => disk,
  } as unknown as HostedVolume;
}

test("a volume that is partly in its bucket: MoveNeedsFillError, nothing copied, nothing marked", async () => {
  const catalog = new MemoryVolumeCatalog();
  await catalog.load();
  await catalog.put(record);
  const volume = hosted(3, source());
  const here = new Map([[record.name, volume]]);
  const moved = new MovedVolumes(catalog, here);
  const never = async (): Promise<string> => expect.unreachable("it is not copied");
  await expect(moved.move(volume, "http://api", never)).rejects.toMatchObject({
    _tag: "MoveNeedsFillError",
    message: "volume disk0: 1 of 4 extents are in its bucket only",
    hint: expect.stringContaining("varve volume fill disk0"),
  });
  expect([catalog.list(), here.size, moved.find("disk0")]).toEqual([[record], 1, null]);
});

test("a moved volume: VolumeMovedError to whoever wants it, over a restart too", async () => {
  const catalog = new MemoryVolumeCatalog();
  await catalog.load();
  await catalog.put(record);
  const volume = hosted(4, source());
  const here = new Map([[record.name, volume]]);
  const moved = new MovedVolumes(catalog, here);
  const failing = moved.move(volume, "http://api", async () => Promise.reject(new Error("killed")));
  await expect(failing).rejects.toThrow("killed");
  expect([catalog.list(), here.size]).toEqual([[record], 1]);
  await moved.move(volume, "http://api", async () => "ffeeddccbbaa9988");
  expect(here.size).toBe(0);
  const next = new MovedVolumes(catalog, new Map());
  for (const one of catalog.list()) next.add(one);
  for (const who of [moved, next]) {
    expect(() => who.refuse("disk0")).toThrow(
      expect.objectContaining({
        _tag: "VolumeMovedError",
        message: "volume disk0 was moved to http://api",
        hint: expect.stringContaining("varve volume delete disk0"),
      }),
    );
  }
});
