// Reads of an image by a gateway on its storage node's host: bytes count only while the grant's note shows its token after they were
// read, and is as new as asked. The node is played; the real one's part is in unit/storage/replica-set.test.ts.
import { beforeEach, describe, expect, test } from "vitest";
import { SystemClock } from "#shared/adapters/clock/system.ts";
import { MemoryFileStore } from "#shared/adapters/file-store/memory.ts";
import { encodeMessage, type ReplicaMessage } from "#shared/formats/replica-message.ts";
import type { BlockFile } from "#shared/ports/file-store.ts";
import { DirectReads, directFiles } from "../../../services/gateway/engine/direct-reads.ts";
import { ReadGrant } from "../../../services/storage/engine/read-grant.ts";
import { SteppedRandom } from "../file-store/stepped-clock.ts";

const imagePath = "/pool/volumes/a/disk.raw";
const notePath = `${imagePath}.grant`;
const random = new SteppedRandom(1);
const slab = { bytes: Buffer.alloc(4096), address: 0 };

const noteSlab = { bytes: Buffer.alloc(4096), address: 0 };
let store: MemoryFileStore;
let image: BlockFile;
let grant: ReadGrant;
let epochs: number[];
let answer: () => ReplicaMessage;

beforeEach(async () => {
  store = new MemoryFileStore();
  await store.makeDirectory("/pool/volumes/a");
  image = await store.open(imagePath, { create: true, access: "buffered" });
  grant = await ReadGrant.open(store, random, imagePath, noteSlab);
  epochs = [];
  answer = () => ({ type: "granted", imagePath, token: grant.give(10), epoch: 3 });
  fill(1);
});

function fill(value: number): void {
  image.writeInline([{ slab: { bytes: Buffer.alloc(4096, value), address: 0 }, start: 0, length: 4096 }], 0);
}

function reader(): DirectReads & { readonly counters: { directReads: number } } {
  const counters = { directReads: 0 };
  const bus = { request: async () => encodeMessage(answer()) };
  const onEpoch = (epoch: number): void => void epochs.push(epoch);
  const reads = new DirectReads({
    files: directFiles(store),
    bus,
    clock: new SystemClock(),
    subject: "s",
    onEpoch,
    counters,
  });
  return Object.assign(reads, { counters });
}

const heard = async (reads: DirectReads): Promise<void> => {
  reads.heard();
  await new Promise((resolve) => setTimeout(resolve, 5));
};
const inline = (reads: DirectReads, leastLsn = 10): number => {
  const got = reads.readInline(slab, 0, 4096, 0, leastLsn);
  return got === 4096 ? (slab.bytes[0] ?? -2) : got;
};

describe("direct reads", () => {
  test("give what the image holds now, as new as the note says, both ways", async () => {
    const reads = reader();
    expect(inline(reads)).toBe(-1);
    await heard(reads);
    expect([inline(reads), epochs]).toEqual([1, [3]]);
    fill(2);
    expect(await reads.read(slab, 0, 4096, 0, 10)).toBe(true);
    expect([slab.bytes[0], reads.counters.directReads]).toEqual([2, 2]);
    expect([inline(reads, 11), await reads.read(slab, 0, 4096, 0, 11)]).toEqual([-1, false]);
    grant.applied(11);
    expect(inline(reads, 11)).toBe(2);
  });

  test("count for nothing when the grant was revoked before they ended", async () => {
    const reads = reader();
    await heard(reads);
    const reading = reads.read(slab, 0, 4096, 0, 10);
    grant.revoke();
    fill(9);
    expect(await reading).toBe(false);
    expect(inline(reads)).toBe(-1);
  });

  test("end with the node's life: the next one voids what was granted before it replays", async () => {
    const reads = reader();
    await heard(reads);
    await ReadGrant.open(store, random, imagePath, noteSlab);
    fill(9);
    expect(inline(reads)).toBe(-1);
  });

  test("a token that was given again is another one", async () => {
    const reads = reader();
    await heard(reads);
    grant.revoke();
    grant.give(12);
    expect(inline(reads)).toBe(-1);
  });

  test("a note that is caught while it is written refuses one read and ends nothing", async () => {
    const reads = reader();
    await heard(reads);
    const note = await store.open(notePath, { access: "buffered" });
    const whole = Buffer.from((await store.readWhole(notePath)) ?? []);
    const put = (bytes: Buffer): void =>
      note.writeInline([{ slab: { bytes, address: 0 }, start: 0, length: bytes.length }], 0);
    const torn = Buffer.from(whole);
    torn.writeUInt8(11, 32);
    put(torn);
    expect(inline(reads)).toBe(-1);
    put(whole);
    expect(inline(reads)).toBe(1);
  });

  test("nothing is granted by a refusal, a path that is not here, or another file's note", async () => {
    const refusal = {
      type: "refused",
      kind: "Retry",
      tag: "ReadsNotGranted",
      message: "",
      epoch: 3,
    } as const;
    const elsewhere = { type: "granted", imagePath: "/elsewhere", token: grant.give(10), epoch: 3 } as const;
    const other = { ...elsewhere, imagePath, token: "f".repeat(32) };
    for (const one of [refusal, elsewhere, other]) {
      answer = () => one;
      const reads = reader();
      await heard(reads);
      expect([one.type, inline(reads)]).toEqual([one.type, -1]);
    }
  });

  test("a failing image ends the grant, and close gives the files back", async () => {
    const reads = reader();
    await heard(reads);
    expect(inline(reads)).toBe(1);
    reads.close();
    expect(inline(reads)).toBe(-1);
    await heard(reads);
    expect(inline(reads)).toBe(-1);
  });
});
