// Clients that stall, flood or vanish, and a server that stops: limits hold, memory comes back, the others feel nothing.
// Time is the test's (ManualClock), sockets are real. Each hostile client stands beside a good one that must be served.

import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { foregroundCell } from "#shared/memory/foreground-load.ts";
import { limits } from "../../../shared/domain/limits.ts";
import { MemoryExport } from "../../tools/memory-export.ts";
import { command, encodeOption, magic, NbdSocket, option } from "../../tools/nbd-wire.ts";
import { type Gateway, pattern, RawClient, startGateway, until } from "./gateway.ts";

const MiB = 1024 * 1024;
let gateway: Gateway;
let disk: MemoryExport;
let good: RawClient;
let bad: RawClient;
const content = pattern(64 * MiB);

beforeEach(async () => {
  disk = new MemoryExport("disk0", { sizeBytes: 64 * MiB });
  content.copy(disk.data);
  disk.allocated.fill(1);
  gateway = await startGateway([disk]);
  good = await RawClient.transmitting(gateway.address, "simple");
  bad = await RawClient.transmitting(gateway.address, "simple");
});

afterEach(() => {
  good.destroy();
  bad.destroy();
  gateway.close();
});

/** Stops taking bytes from the socket, as a stuck client does. */
function stopReading(client: RawClient): void {
  client.wire.socket.pause();
  client.wire.socket.removeAllListeners("data");
}

async function goodIsServed(): Promise<void> {
  good.send(good.frame(command.read, 4096, 8192));
  const { errno, data } = await good.simpleReply(8192);
  expect(errno).toBe(0);
  expect(data.equals(disk.data.subarray(4096, 4096 + 8192))).toBe(true);
  expect(await good.errnoOf(command.write, 0, 512, 0, Buffer.from(disk.data.subarray(0, 512)))).toBe(0);
}

const unsentOf = (): number =>
  Math.max(...gateway.server.connections().map(({ unsentBytes }) => unsentBytes));
const openCount = (): number => gateway.server.connections().length;

describe("a client that never reads its replies", () => {
  test("is not read from any more, and is closed after its time", async () => {
    stopReading(bad);
    const requests = Array.from({ length: 2000 }, () => bad.frame(command.read, 0, 128 * 1024));
    bad.send(...requests);
    await until(() => unsentOf() >= limits.nbdUnsentBytesMax);
    const unsent = unsentOf();
    expect(unsent).toBeLessThan(limits.nbdUnsentBytesMax + limits.nbdReplySlabBytes);
    expect(gateway.server.memory.replyBytesLent).toBeLessThan(8 * MiB);
    gateway.clock.advance(59_000);
    await goodIsServed();
    expect(openCount()).toBe(2);
    gateway.clock.advance(2_000);
    await until(() => openCount() === 1);
    await until(() => gateway.server.memory.replyBytesLent === 0);
    expect(gateway.server.counters().connectionsBroken).toBe(1);
    await goodIsServed();
  });

  test("can't starve others of memory with the largest reads", async () => {
    const crowd = [bad];
    for (let count = 0; count < 3; count += 1) {
      crowd.push(await RawClient.transmitting(gateway.address, "simple"));
    }
    for (const client of crowd) {
      stopReading(client);
      client.send(client.frame(command.read, 0, 32 * MiB), client.frame(command.read, 0, 32 * MiB));
    }
    await until(() => gateway.server.memory.freeSlabs < 66);
    expect(gateway.server.memory.replyBytesLent).toBeLessThanOrEqual(limits.nbdReplyMemoryBytesMax);
    await goodIsServed();
    const patient = await RawClient.transmitting(gateway.address, "simple");
    patient.send(patient.frame(command.read, 0, 32 * MiB));
    await goodIsServed();
    for (let seconds = 0; seconds < 400 && openCount() > 2; seconds += 1) {
      gateway.clock.advance(1000);
      await goodIsServed();
    }
    expect((await patient.simpleReply(32 * MiB)).data.equals(disk.data.subarray(0, 32 * MiB))).toBe(true);
    patient.destroy();
    for (const client of crowd) client.destroy();
  });

  test("one that reads slowly is not closed", async () => {
    bad.wire.socket.pause();
    bad.send(...Array.from({ length: 60 }, () => bad.frame(command.read, 0, 128 * 1024)));
    await until(() => unsentOf() >= limits.nbdUnsentBytesMax);
    for (let count = 0; count < 60; count += 1) {
      const before =
        gateway.server.connections().find(({ unsentBytes }) => unsentBytes > 0)?.unsentBytes ?? 0;
      gateway.clock.advance(40_000);
      expect((await bad.simpleReply(128 * 1024)).errno).toBe(0);
      await until(() => unsentOf() !== before || unsentOf() === 0);
    }
    expect(openCount()).toBe(2);
  });
});

describe("a client that sends half a payload and stays", () => {
  for (const bytes of [20_000, 300_000]) {
    test(`of ${bytes} bytes is closed after its time, and nothing is written`, async () => {
      bad.send(bad.frame(command.write, 0, bytes), Buffer.alloc(bytes - 1, 0xbb));
      await until(() => (gateway.server.connections()[1]?.inFlight ?? 0) === 1);
      // All of it came before the clock moves, or its last bytes would begin the time anew.
      await until(() => bad.wire.socket.writableLength === 0);
      await goodIsServed();
      gateway.clock.advance(59_000);
      await goodIsServed();
      gateway.clock.advance(2_000);
      await bad.hungUp();
      await until(() => openCount() === 1);
      expect(disk.slotsLent).toBe(0);
      expect(disk.data[1]).toBe(pattern(2)[1]);
      expect(disk.calls.filter((call) => call === `writeReserved 0+${bytes}`)).toEqual([]);
    });
  }

  test("one that vanishes in the middle gives its slot back", async () => {
    bad.send(bad.frame(command.write, 0, 300_000), Buffer.alloc(200_000, 0xbb));
    await until(() => disk.slotsLent === 1);
    bad.destroy();
    await until(() => openCount() === 1);
    expect(disk.slotsLent).toBe(0);
    expect(disk.calls).toContain("cancel 300000");
    await goodIsServed();
  });

  test("half a request header is closed too, an idle client never", async () => {
    bad.send(bad.frame(command.read, 0, 512).subarray(0, 10));
    await until(() => openCount() === 2);
    await new Promise((resolve) => setTimeout(resolve, 20));
    gateway.clock.advance(61_000);
    await bad.hungUp();
    gateway.clock.advance(3_600_000);
    await goodIsServed();
  });
});

describe("limits", () => {
  test("requests in flight stop at their maximum and go on behind it", async () => {
    disk.holdAll = true;
    const count = limits.nbdRequestsInFlightMax + 300;
    bad.send(
      ...Array.from({ length: count }, (_, index) => bad.frame(command.read, 0, 16, 0, BigInt(index))),
    );
    await until(() => disk.heldCount === limits.nbdRequestsInFlightMax);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(disk.heldCount).toBe(limits.nbdRequestsInFlightMax);
    disk.release();
    const seen = new Set<bigint>();
    for (let index = 0; index < count; index += 1) seen.add((await bad.simpleReply(16)).cookie);
    expect(seen.size).toBe(count);
  });

  for (const bytes of [4096, 300_000, 9 * MiB]) {
    test(`writes of ${bytes} bytes wait for payload memory while reads of others go on`, async () => {
      disk.roomBytes = 0;
      const data = pattern(bytes, 3);
      bad.send(bad.frame(command.write, 0, bytes), data);
      await new Promise((resolve) => setTimeout(resolve, 20));
      good.send(good.frame(command.read, MiB, 512));
      expect((await good.simpleReply(512)).errno).toBe(0);
      expect(disk.data[0]).toBe(pattern(1)[0]);
      // Only part of what a long write needs: it comes back piece by piece.
      disk.addRoom(4 * MiB);
      expect((await bad.simpleReply()).errno).toBe(0);
      expect(await bad.errnoOf(command.read, 0, 512)).toBe(0);
      expect(disk.data.compare(data, 0, bytes, 0, bytes)).toBe(0);
      expect(disk.slotsLent).toBe(0);
    });
  }

  test("trims and zeroes wait for room too", async () => {
    disk.roomBytes = 0;
    bad.send(bad.frame(command.trim, 0, 4096), bad.frame(command.writeZeroes, 8192, 4096));
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(disk.calls).toEqual([]);
    disk.addRoom(1);
    expect([(await bad.simpleReply()).errno, (await bad.simpleReply()).errno]).toEqual([0, 0]);
  });

  test("more connections than allowed are refused", async () => {
    const small = await startGateway([disk], { connectionsMax: 1 });
    const first = await RawClient.transmitting(small.address);
    const second = await NbdSocket.connect(small.address);
    await expect(second.receive(1)).rejects.toThrow();
    expect(small.server.counters().connectionsRefused).toBe(1);
    expect(await first.errnoOf(command.read, 0, 512)).toBe(0);
    first.destroy();
    await until(() => small.server.connections().length === 0);
    const third = await RawClient.transmitting(small.address);
    third.destroy();
    small.close();
  });

  test("the sweep's timer runs only while there are connections", async () => {
    expect(gateway.clock.pending).toBe(1);
    good.destroy();
    bad.destroy();
    await until(() => openCount() === 0);
    expect(gateway.clock.pending).toBe(0);
  });
});

describe("a client that breaks the protocol", () => {
  test("is closed at a wrong magic; what it had asked before is answered", async () => {
    bad.send(bad.frame(command.read, 0, 512), Buffer.alloc(28, 0x11));
    expect((await bad.simpleReply(512)).errno).toBe(0);
    await bad.hungUp();
    await goodIsServed();
    expect(gateway.server.counters().connectionsBroken).toBe(1);
  });

  test("compact headers after extended ones were agreed close", async () => {
    const extended = await RawClient.transmitting(gateway.address, "extended");
    extended.style = "simple";
    extended.send(extended.frame(command.read, 0, 512), Buffer.alloc(4));
    await extended.hungUp();
    await goodIsServed();
  });

  test("options in transmission are a wrong magic", async () => {
    bad.send(encodeOption(option.list), Buffer.alloc(12));
    await bad.hungUp();
    await goodIsServed();
  });

  test("one that vanishes with requests in flight leaves nothing behind", async () => {
    disk.holdAll = true;
    const extended = await RawClient.transmitting(gateway.address, "structured");
    const requests = [0, 1, 2].map((n) => extended.frame(command.read, n * MiB, MiB));
    extended.send(...requests, extended.frame(command.read, 0, 512), extended.frame(command.flush, 0, 0));
    await until(() => disk.heldCount >= 14);
    expect(Atomics.load(gateway.foreground.cells, foregroundCell.requests)).toBe(5);
    const sessions = disk.sessions;
    extended.destroy();
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(disk.sessions).toBe(sessions);
    disk.release();
    await until(() => disk.sessions === sessions - 1 && openCount() === 2);
    await until(() => gateway.server.memory.replyBytesLent === 0);
    expect(gateway.server.inFlight).toBe(0);
    expect(Atomics.load(gateway.foreground.cells, foregroundCell.requests)).toBe(0);
    await goodIsServed();
  });

  test("one that closes its sending side still gets its answers", async () => {
    disk.holdAll = true;
    bad.send(bad.frame(command.read, 0, 4096, 0, 5n));
    await until(() => disk.heldCount === 1);
    bad.wire.socket.end();
    await new Promise((resolve) => setTimeout(resolve, 20));
    disk.release();
    expect(await bad.simpleReply(4096)).toMatchObject({ errno: 0, cookie: 5n });
    await bad.hungUp();
    await until(() => openCount() === 1);
  });
});

describe("stopping", () => {
  test("answers what is in flight, leaves what comes unanswered, closes, listens no more", async () => {
    disk.holdAll = true;
    bad.send(bad.frame(command.write, 0, 512, 0, 1n), Buffer.alloc(512, 9));
    await until(() => disk.heldCount === 1);
    const drained = gateway.server.drain(60_000);
    await good.hungUp();
    bad.send(
      bad.frame(command.write, 512, 512, 0, 2n),
      Buffer.alloc(512, 9),
      bad.frame(command.read, 0, 512, 0, 3n),
    );
    await expect(NbdSocket.connect(gateway.address)).rejects.toThrow();
    disk.release();
    expect(await bad.simpleReply()).toMatchObject({ errno: 0, cookie: 1n });
    await bad.hungUp();
    good.destroy();
    bad.destroy();
    await drained;
    expect(disk.data[0]).toBe(9);
    expect(disk.data[512]).toBe(content[512]);
    expect(disk.sessions).toBe(0);
  });

  test("cuts off what is not finished in time", async () => {
    disk.holdAll = true;
    const structured = await RawClient.transmitting(gateway.address, "structured");
    structured.send(structured.frame(command.read, 0, 2 * MiB), structured.frame(command.flush, 0, 0));
    bad.send(bad.frame(command.read, 0, 512), bad.frame(command.read, 0, 2 * MiB));
    await until(() => disk.heldCount === 8 + 1 + 1 + 8);
    const drained = gateway.server.drain(5_000);
    gateway.clock.advance(5_001);
    await drained;
    await bad.hungUp();
    await structured.hungUp();
    expect(disk.sessions).toBe(2);
    disk.release();
    await until(() => disk.sessions === 0);
    expect(gateway.server.memory.replyBytesLent).toBe(0);
    expect(gateway.server.inFlight).toBe(0);
  });

  test("does not wait long for the rest of a payload", async () => {
    bad.send(bad.frame(command.write, 0, 300_000), Buffer.alloc(200_000, 0xbb));
    await until(() => disk.slotsLent === 1);
    const drained = gateway.server.drain(20_000);
    good.destroy();
    await until(() => openCount() === 1);
    gateway.clock.advance(4_000);
    await drained;
    expect(disk.slotsLent).toBe(0);
    expect(disk.data[0]).toBe(pattern(1)[0]);
  });

  test("a client that does not close its side is closed after a while", async () => {
    const rude = await RawClient.transmitting(gateway.address, "simple");
    rude.send(rude.frame(command.disconnect, 0, 0));
    await rude.hungUp();
    rude.wire.socket.pause();
    expect(openCount()).toBeGreaterThanOrEqual(2);
    gateway.clock.advance(6_000);
    await until(() => openCount() === 2);
    rude.destroy();
  });

  test("clients in the handshake are closed", async () => {
    const early = await NbdSocket.connect(gateway.address);
    expect((await early.receive(18)).readBigUInt64BE(0)).toBe(magic.init);
    void gateway.server.drain(1000);
    await expect(early.receive(1)).rejects.toThrow();
  });

  test("one export's clients can be disconnected", async () => {
    gateway.server.disconnectExport("other");
    await goodIsServed();
    gateway.server.disconnectExport("disk0");
    await good.hungUp();
    await bad.hungUp();
  });
});

describe("counters", () => {
  test("count what was done, also of clients that are gone", async () => {
    await goodIsServed();
    expect(await bad.errnoOf(command.trim, 0, 4096)).toBe(0);
    expect(await bad.errnoOf(command.writeZeroes, 0, 4096)).toBe(0);
    expect(await bad.errnoOf(command.flush, 0, 0)).toBe(0);
    expect(await bad.errnoOf(99, 0, 0)).not.toBe(0);
    bad.destroy();
    await until(() => openCount() === 1);
    expect(gateway.server.counters()).toMatchObject({
      readRequests: 1,
      readBytes: 8192,
      writeRequests: 1,
      writtenBytes: 512,
      trimRequests: 1,
      zeroRequests: 1,
      flushRequests: 1,
      failedRequests: 1,
      connectionsAccepted: 2,
    });
    expect(gateway.server.connections()[0]).toMatchObject({ exportName: "disk0", inFlight: 0 });
  });
});
