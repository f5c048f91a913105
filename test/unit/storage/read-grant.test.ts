// A grant's note that outlives its process or can't be written: what it still shows is taken out before anything is changed in the image.
import { expect, test } from "vitest";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { FileStoreError } from "#shared/domain/errors.ts";
import { decodeReadGrant } from "#shared/formats/read-grant.ts";
import { ReadGrant } from "../../../services/storage/engine/read-grant.ts";

const random = { next: () => 0.5, hex: (bytes: number) => "a".repeat(2 * bytes) };

test("what a process granted before it was killed is void as soon as the next one has opened the note", async () => {
  const store = new MemoryFileStore();
  const shown = async () => decodeReadGrant((await store.readWhole("/disk.raw.grant")) ?? Buffer.alloc(0));
  const killed = await ReadGrant.open(store, random, "/disk.raw", store.allocateSlab(4096));
  const token = killed.give(5);
  expect(await shown()).toEqual({ token, appliedLsn: 5 });
  const next = await ReadGrant.open(store, random, "/disk.raw", store.allocateSlab(4096));
  expect(await shown()).toEqual({ token: null, appliedLsn: 0 });
  // It grants nothing yet, so that nothing it applies counts as granted.
  next.applied(6);
  expect(await shown()).toEqual({ token: null, appliedLsn: 0 });
});

test("a note that could not be written is written before a revoke counts as done", async () => {
  const store = new MemoryFileStore();
  let failing = false;
  const open = store.open.bind(store);
  store.open = async (...args) => {
    const file = await open(...args);
    const writeInline = file.writeInline.bind(file);
    file.writeInline = (pieces, offset) => {
      if (failing) throw new FileStoreError("write", "/disk.raw.grant", "EAGAIN");
      writeInline(pieces, offset);
    };
    return file;
  };
  const grant = await ReadGrant.open(store, random, "/disk.raw", store.allocateSlab(4096));
  const shown = async () => decodeReadGrant((await store.readWhole("/disk.raw.grant")) ?? Buffer.alloc(0));
  const token = grant.give(5);
  expect(await shown()).toEqual({ token, appliedLsn: 5 });
  failing = true;
  // Whoever tries again, because a batch waits behind it, is not let by.
  for (let attempts = 0; attempts < 3; attempts += 1) expect(() => grant.revoke()).toThrow("EAGAIN");
  expect(await shown()).toEqual({ token, appliedLsn: 5 });
  failing = false;
  grant.revoke();
  expect(await shown()).toEqual({ token: null, appliedLsn: 0 });
});
