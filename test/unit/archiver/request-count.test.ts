/*
 * What archiving costs in requests, counted at the store: a busy volume one PUT a segment, a slow one a segment a minute, and for each
 * manifest one PUT with the look before and after it; nothing lists after the opening. Figures per GiB: docs/bench/history.md.
 */
import { describe, expect, test } from "vitest";
import { ArchiveWorld, type WatchedStore } from "./archive-world.ts";

const MiB = 1024 * 1024;

interface Requests {
  readonly segments: number;
  readonly manifests: number;
  readonly others: readonly string[];
}

/** What was asked since the log had `from` requests. */
function since(store: WatchedStore, from: number): Requests {
  const asked = store.log.slice(from);
  const puts = asked.filter((one) => one.startsWith("put "));
  const segments = puts.filter((one) => one.endsWith(".seg"));
  const manifests = puts.filter((one) => one.includes("/manifests/"));
  // Beside each manifest: the next line's marker before, the manifest read back, and both ends of being held.
  const ofNames = new Set([...segments, ...manifests].map((one) => one.slice("put ".length)));
  const others = asked.filter((one) => {
    const [request = "", key = ""] = one.split(" ");
    if (request === "head" && key.includes("/lines/")) return false;
    return !ofNames.has(key) || (request !== "put" && request !== "get");
  });
  return { segments: segments.length, manifests: manifests.length, others };
}

describe("requests of an archiver", () => {
  test("a busy volume: one PUT a segment, one manifest a second or for eight segments, each read back; no list", async () => {
    const world = new ArchiveWorld(50, 9 * MiB);
    const { store, volume } = await world.open();
    await world.pass(1000);
    const from = store.log.length;
    const { list } = store.counters;
    for (let count = 0; count < 200; count += 1) {
      world.write((count % 8) * MiB, 16 * 1024, count);
      await world.pass(20);
    }
    await world.clock.until(volume.archive(world.lastLsn));
    await world.pass(5000);
    const { segments, manifests, others } = since(store, from);
    // 200 records of 16 KiB and their headers, in segments of at least 64 KiB of records.
    const most = Math.ceil((200 * 17 * 1024) / (64 * 1024)) + 1;
    expect(segments).toBeGreaterThan(20);
    expect(segments).toBeLessThanOrEqual(most);
    // Four seconds of writes; the first at once, and one for who asks at the end.
    expect(manifests).toBeLessThanOrEqual(4 + Math.ceil(segments / 8) + 2);
    expect(others).toEqual([]);
    // Each manifest and each segment is looked at when it is read back and when it is held.
    expect(store.log.length - from).toBeLessThanOrEqual(2 * segments + 4 * manifests);
    expect(store.counters.list).toBe(list);
  });

  test("an uploaded segment waits a second for its manifest at most, and not where somebody waits for it", async () => {
    const world = new ArchiveWorld(52, 9 * MiB);
    const { volume } = await world.open();
    const archived = (): number => volume.manifest()?.archivedLsn ?? 0;
    const first = world.write(0, 70_000, 1);
    await world.pass(100);
    expect(archived()).toBe(first);
    const second = world.write(MiB, 70_000, 2);
    await world.pass(800);
    expect(archived()).toBe(first);
    await world.pass(200);
    expect(archived()).toBe(second);
    const third = world.write(2 * MiB, 70_000, 3);
    await world.pass(300); // uploaded, and nobody asked
    expect(archived()).toBe(second);
    const askedAtMs = world.clock.monotonicMs();
    await world.clock.until(volume.archive(third));
    expect(world.clock.monotonicMs() - askedAtMs).toBeLessThan(100);
    const last = world.write(3 * MiB, 70_000, 4);
    await world.pass(300);
    expect(archived()).toBe(third);
    const closedAtMs = world.clock.monotonicMs();
    await world.clock.until(volume.close());
    expect(world.clock.monotonicMs() - closedAtMs).toBeLessThan(100);
    expect(archived()).toBe(last);
  });

  test("a write each second for ten minutes: a segment and a manifest a minute, no list", async () => {
    const world = new ArchiveWorld(51, 9 * MiB);
    const { store, volume } = await world.open({ segmentRecordBytes: 8 * MiB });
    await world.pass(1000);
    const from = store.log.length;
    const { list } = store.counters;
    for (let second = 0; second < 600; second += 1) {
      world.write((second % 16) * 4096, 4096, second);
      await world.pass(1000);
    }
    const { segments, manifests, others } = since(store, from);
    expect(segments).toBeGreaterThanOrEqual(9);
    expect(segments).toBeLessThanOrEqual(11);
    expect(manifests).toBeLessThanOrEqual(segments);
    expect(others).toEqual([]);
    expect(store.log.length - from).toBeLessThanOrEqual(2 * segments + 4 * manifests);
    expect(store.counters.list).toBe(list);
    expect(volume.status().state).toBe("running");
  });
});
