// A session that was fenced shows nothing more, and a gateway whose lease ran out lets nobody in (docs/specs/cluster.md).
import { describe, expect, test } from "vitest";
import { VarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import type { BlockExport } from "#shared/ports/block-export.ts";
import type { Lease, Leases } from "#shared/ports/lease.ts";
import type { ReplicaImage } from "#shared/ports/replica-image.ts";
import type { Slab } from "#shared/ports/slab.ts";
import { ClusterVolume, type ClusterVolumeSetting } from "../../../services/gateway/engine/cluster-volume.ts";
import { Overlay } from "../../../services/gateway/engine/overlay.ts";
import { VolumeReader } from "../../../services/gateway/engine/volume-reader.ts";

const fenced = new VarveError("LeaseLostError", "Fenced", "somebody else serves it");
const slab: Slab = { bytes: Buffer.alloc(4096), address: 0 };

function readerOver(image: Partial<ReplicaImage>): VolumeReader {
  const allocation = (offset: number, length: number) => [{ offset, length, allocated: true }];
  return new VolumeReader({ allocation, ...image } as ReplicaImage, new Overlay());
}

describe("reads of a fenced session", () => {
  test("fail, also where the bytes are at hand", async () => {
    const reader = readerOver({ readInline: (_slab, _start, length) => length });
    expect(reader.read(0, 4096, slab, 0, { complete: () => undefined })).toBe(true);
    reader.fence(fenced);
    const error = await new Promise((resolve) => {
      expect(reader.read(0, 4096, slab, 0, { complete: resolve })).toBe(false);
    });
    expect(error).toBe(fenced);
  });

  test("fail where the fence came while they were under way", async () => {
    let arrive = (): void => undefined;
    const read = async (): Promise<void> =>
      new Promise((resolve) => {
        arrive = resolve;
      });
    const reader = readerOver({ readInline: () => -1, read });
    const answered = new Promise((resolve) => {
      reader.read(0, 4096, slab, 0, { complete: resolve });
    });
    reader.fence(fenced);
    arrive();
    expect(await answered).toBe(fenced);
  });

  test("a fenced session calls nothing a hole", () => {
    const hole = { offset: 0, length: 4096, allocated: false };
    const reader = readerOver({ allocation: () => [hole] });
    reader.fence(fenced);
    expect(reader.blockStatus(0, 4096, 8)).toEqual([{ ...hole, allocated: true }]);
  });
});

test("who connects while the lease has run out is sent away, who comes after its renewal is let in", async () => {
  let remainingMs = 3000;
  const lease = { remainingMs: () => remainingMs, onLost: () => undefined } as Partial<Lease> as Lease;
  const opened = { name: "disk0" } as BlockExport;
  const record = { id: "5ca1ab1e00c0ffee", name: "disk0", state: "active" } as VolumeRecord;
  const session = { openExport: () => opened, attachedClients: 0 };
  const setting = {
    gateway: "g1",
    address: "g1",
    clock: { after: () => ({ cancel: () => undefined }) },
    leases: { take: async () => lease } as Partial<Leases>,
    catalog: { fetch: async (): Promise<VolumeRecord> => record },
    openSession: async () => session,
    disconnect: () => undefined,
    onNote: () => undefined,
  } as unknown as ClusterVolumeSetting;
  const volume = new ClusterVolume(record, setting, () => undefined);
  expect(await volume.open()).toBe(opened);
  remainingMs = -1;
  await expect(volume.open()).rejects.toMatchObject({ _tag: "VolumeMoving", kind: "Retry" });
  remainingMs = 2000;
  expect(await volume.open()).toBe(opened);
});
