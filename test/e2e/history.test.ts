// The past of a served volume as users reach it: snapshots, points by name, LSN and time over NBD with real clients, the
// timeline, changed ranges over HTTP, over NBD and by the command line. Clones and rollback: history-changes.test.ts.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ApiChanges, ApiHistory, ApiSnapshot } from "#shared/api/past-api.ts";
import { bytesOf, PastServer, succeed } from "../tools/past-server.ts";
import { varve, varveJson } from "../tools/varve-command.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const first = bytesOf(1, 3 * MiB);
const second = bytesOf(2, MiB);
let server: PastServer;
let between = "";

beforeAll(async () => {
  server = await PastServer.start(["disk0:32M", "quiet:8M"]);
  await server.write("disk0", 0, first);
  await server.snapshot("disk0", "one");
  between = await afterTheLastMillisecond();
  await server.write("disk0", 5 * MiB, second);
  await server.write("disk0", 0, Buffer.alloc(64 * KiB));
});
afterAll(async () => server.end());

/** A time after everything so far, and before everything to come. */
async function afterTheLastMillisecond(): Promise<string> {
  const wait = async (): Promise<void> =>
    new Promise((resolve) => {
      setTimeout(resolve, 20);
    });
  await wait();
  const time = new Date().toISOString();
  await wait();
  return time;
}

function diskAtOne(): Buffer {
  return Buffer.concat([first, Buffer.alloc(29 * MiB)]);
}

describe("snapshots", () => {
  test("are taken, listed and deleted by the command line, while a client writes", async () => {
    const client = await server.connect("disk0");
    const made = await varveJson<ApiSnapshot>(["snapshot", "create", "disk0", "by-hand", ...server.api]);
    expect(made.name).toBe("by-hand");
    await client.write(20 * MiB, Buffer.alloc(4096, 9));
    await client.disconnect();
    const text = (await varve(["snapshot", "list", "disk0", ...server.api])).stdout;
    expect(text).toMatch(new RegExp(`^by-hand +${made.lsn} +${made.createdAt}$`, "m"));
    expect((await server.read("disk0@by-hand", 20 * MiB, 4096)).every((byte) => byte === 0)).toBe(true);
    expect((await server.read("disk0", 20 * MiB, 4096)).every((byte) => byte === 9)).toBe(true);
    const gone = await varve(["snapshot", "delete", "disk0", "by-hand", ...server.api]);
    expect(gone).toMatchObject({ code: 0, stdout: "deleted disk0@by-hand\n" });
    await expect(server.connect("disk0@by-hand")).rejects.toThrow();
    await server.write("disk0", 20 * MiB, Buffer.alloc(4096));
  });

  test("cost one entry, whatever was written before", async () => {
    const before = (await server.volume("quiet")).figures?.lastLsn ?? 0;
    const { lsn } = await server.snapshot("quiet", "empty");
    expect(lsn).toBe(before + 1);
    expect((await server.volume("quiet")).figures?.lastLsn).toBe(lsn);
  });

  test("are listed as exports, other points are not", async () => {
    const listed = await succeed("nbdinfo", "--list", "--json", server.uri(""));
    const names = (JSON.parse(listed) as { exports: { "export-name": string }[] }).exports.map(
      (one) => one["export-name"],
    );
    expect(names).toEqual(["disk0", "disk0@one", "quiet", "quiet@empty"]);
  });
});

describe("a point over NBD", () => {
  test("nbdcopy brings the disk of a snapshot, byte for byte", async () => {
    expect((await server.copy("disk0@one")).equals(diskAtOne())).toBe(true);
  });

  test("qemu-img compares it, and finds the present disk different", async () => {
    const then = server.file("one.raw", diskAtOne());
    await succeed("qemu-img", "compare", "-f", "raw", "-F", "raw", then, server.uri("disk0@one"));
    await expect(
      succeed("qemu-img", "compare", "-f", "raw", "-F", "raw", then, server.uri("disk0")),
    ).rejects.toThrow("exit 1");
  });

  test("opens by LSN and by time, also before it is archived", async () => {
    const snapshots = await server.ok<ApiSnapshot[]>("GET", "/volumes/disk0/snapshots");
    const { lsn } = snapshots.find((one) => one.name === "one") as ApiSnapshot;
    for (const name of [`disk0@lsn:${lsn}`, `disk0@${between}`]) {
      const client = await server.connect(name);
      expect(client.size, name).toBe(32 * MiB);
      expect((await client.read(0, 3 * MiB)).equals(first), name).toBe(true);
      expect(
        (await client.read(5 * MiB, MiB)).every((byte) => byte === 0),
        name,
      ).toBe(true);
      await client.disconnect();
    }
    const now = (await server.volume("disk0")).figures?.durableLsn ?? 0;
    expect((await server.read(`disk0@lsn:${now}`, 5 * MiB, MiB)).equals(second)).toBe(true);
  });

  test("is read-only: EPERM, and the disk keeps its bytes", async () => {
    const client = await server.connect("disk0@one");
    expect(client.transmissionFlags & 2).toBe(2);
    for (const attempt of [
      client.write(0, Buffer.alloc(4096, 1)),
      client.trim(0, 4096),
      client.writeZeroes(0, 4096),
    ]) {
      await expect(attempt).rejects.toThrow(/EPERM|errno 1\b|read-only/);
    }
    await client.flush();
    await client.cache(0, 4096);
    expect((await client.read(0, 3 * MiB)).equals(first)).toBe(true);
    await client.disconnect();
  });

  test("keeps its bytes while the volume is written", async () => {
    const point = await server.connect("disk0@one");
    const writer = await server.connect("disk0");
    for (let round = 0; round < 8; round += 1) {
      await writer.write(round * 256 * KiB, bytesOf(round + 10, 256 * KiB));
      expect(
        (await point.read(round * 256 * KiB, 256 * KiB)).equals(
          first.subarray(round * 256 * KiB, (round + 1) * 256 * KiB),
        ),
      ).toBe(true);
    }
    await writer.write(0, Buffer.concat([Buffer.alloc(64 * KiB), first.subarray(64 * KiB)]));
    await Promise.all([point.disconnect(), writer.disconnect()]);
  });

  test("what does not open says why, with the range", async () => {
    // nbdinfo keeps the server's sentence to itself; qemu passes it on.
    const text = async (name: string): Promise<string> => wordsOf("qemu-img", "info", server.uri(name));
    expect(await text("disk0@lsn:99999")).toMatch(/lsn:99999.*lsn:1 /s);
    expect(await text("disk0@2001-01-01T00:00:00Z")).toMatch(/2001-01-01.*lsn:1 /s);
    expect(await text("disk0@no-such")).toContain("no-such");
    expect(await text("disk0@Not%20A%20Point")).toContain("is not a point in time");
    expect(await text("nobody@one")).toContain("no export");
  });
});

/** Runs a program that is to fail; its words. */
async function wordsOf(program: string, ...args: readonly string[]): Promise<string> {
  return await succeed(program, ...args).then(
    () => {
      throw new Error(`${program} ${args.join(" ")} did not fail`);
    },
    (cause: Error) => cause.message,
  );
}

describe("what happened", () => {
  test("the timeline counts every write once, and names the marks", async () => {
    const history = await server.history("disk0");
    const sum = history.intervals.reduce((bytes, one) => bytes + one.writeBytes, 0);
    expect(sum).toBeGreaterThanOrEqual(4 * MiB + 64 * KiB);
    expect(history.intervals.flatMap((one) => one.events).join(" ")).toContain("snapshot one");
    expect(history.range.fromLsn).toBe(1);
    expect(history.snapshots.map((one) => one.name)).toEqual(["one"]);
    const text = (await varve(["history", "disk0", "--intervals", "3", ...server.api])).stdout;
    expect(text).toMatch(/^opens from +entry 1, /m);
    const shown = await varveJson<ApiHistory>(["history", "disk0", "--intervals", "3", ...server.api]);
    expect(shown.intervals).toHaveLength(3);
  });

  test("changed ranges between two points, by the API and the command line", async () => {
    const { lsn } = await server.snapshot("disk0", "three");
    await server.write("disk0", 12 * MiB + 512, Buffer.alloc(1024, 3));
    const now = (await server.volume("disk0")).figures?.durableLsn ?? 0;
    const changes = await server.changes("disk0", "three", `lsn:${now}`);
    expect(changes.from.lsn).toBe(lsn);
    expect(changes.ranges).toEqual([{ offset: 12 * MiB + 512, length: 1024 }]);
    const args = ["changes", "disk0", "--from", `lsn:${now}`, "--to", "three", ...server.api];
    expect((await varveJson<ApiChanges>(args)).ranges).toEqual(changes.ranges);
    expect((await varve(args)).stdout).toContain(String(12 * MiB + 512));
    expect((await server.changes("disk0", "three", "three")).ranges).toEqual([]);
  });

  test("changed ranges as a metadata context, also by qemu's name", async () => {
    const { lsn } = await server.snapshot("disk0", "four");
    await server.write("disk0", 16 * MiB, Buffer.alloc(8192, 4));
    await server.snapshot("disk0", "five");
    for (const context of ["varve:changed:four", `qemu:dirty-bitmap:lsn:${lsn}`]) {
      for (const name of ["disk0@five", "disk0"]) {
        const client = await server.connect(name, [context, "varve:changed:no-such", "varve:residency"]);
        expect([...client.contexts.values()].sort()).toEqual([context, "varve:residency"].sort());
        const status = await client.blockStatus(15 * MiB, 2 * MiB);
        expect(status.get(context), `${context} of ${name}`).toMatchObject([
          { offset: 15 * MiB, flags: 0 },
          { offset: 16 * MiB, length: 8192, flags: 1 },
          { offset: 16 * MiB + 8192, length: MiB - 8192, flags: 0 },
        ]);
        expect(status.get("varve:residency")).toMatchObject([
          { length: 2 * MiB, flags: name === "disk0" ? 0 : 1 },
        ]);
        await client.disconnect();
      }
    }
  });

  test("blocks at a point over HTTP", async () => {
    const url = `${server.base}/v1/volumes/disk0/points/one/blocks?offset=1000&length=${MiB}`;
    const response = await fetch(url);
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("application/octet-stream");
    expect(response.headers.get("varve-size")).toBe(String(32 * MiB));
    expect(Buffer.from(await response.arrayBuffer()).equals(first.subarray(1000, 1000 + MiB))).toBe(true);
  });
});

test("with --bucket none nothing is kept, and what needs it says so", async () => {
  const none = await PastServer.start(["disk0:8M"], { args: ["--bucket", "none"] });
  try {
    await none.write("disk0", 0, Buffer.alloc(4096, 1));
    expect((await none.volume("disk0")).past).toMatchObject({ archive: "off" });
    for (const [method, path, body] of [
      ["POST", "/volumes/disk0/snapshots", { name: "one" }],
      ["GET", "/volumes/disk0/history", undefined],
      ["POST", "/volumes/disk0/clones", { name: "two", point: "lsn:1" }],
      ["POST", "/volumes/disk0/rollback", { point: "lsn:1" }],
    ] as const) {
      expect((await none.refused(method, path, body)).tag).toBe("HistoryOffError");
    }
    await expect(none.connect("disk0@lsn:1")).rejects.toThrow();
    await none.ok("DELETE", "/volumes/disk0");
  } finally {
    await none.end();
  }
});
