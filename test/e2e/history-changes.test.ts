// Clones, restores and rollback with real clients: bytes, refusals, jobs, and what a restart or kill -9 leaves of them; a
// bucket that is away at start; deletion. The steps are docs/specs/points.md.
import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import type { ApiJob, ApiSnapshot, ApiStartedChange } from "#shared/api/past-api.ts";
import { bytesOf, PastServer, succeed } from "../tools/past-server.ts";
import { varve, varveJson } from "../tools/varve-command.ts";

const MiB = 1024 * 1024;
const first = bytesOf(1, 5 * MiB);
const second = bytesOf(2, 3 * MiB);
let server: PastServer;
afterEach(async () => server.end());

/** disk0 with `first` at snapshot one; behind it `second` over the beginning. */
async function twoStates(): Promise<void> {
  server = await PastServer.start(["disk0:32M"]);
  await server.write("disk0", 0, first);
  await server.snapshot("disk0", "one");
  await server.write("disk0", 0, second);
}

const stateOne = (): Buffer => Buffer.concat([first, Buffer.alloc(27 * MiB)]);
const stateTwo = (): Buffer => Buffer.concat([second, first.subarray(3 * MiB), Buffer.alloc(27 * MiB)]);

const holds = async (exportName: string, disk: Buffer): Promise<void> => {
  expect((await server.copy(exportName)).equals(disk), exportName).toBe(true);
};

describe("a clone", () => {
  test("is there at once, writable, fills, and lives on its own", async () => {
    await twoStates();
    const made = await varveJson<ApiStartedChange>([
      "volume",
      "create",
      "web",
      "--from",
      "disk0@one",
      ...server.api,
    ]);
    expect(made.volume).toMatchObject({
      name: "web",
      sizeBytes: 32 * MiB,
      past: { origin: { name: "disk0" } },
    });
    expect(made.job).toMatchObject({ kind: "create from", volume: "web", state: "done" });
    await holds("web", stateOne());
    await server.write("web", 31 * MiB, Buffer.alloc(4096, 7));
    await holds("disk0", stateTwo());
    const shown = await server.volume("web");
    expect(shown.past?.extents).toMatchObject({ remote: 0, partial: 0 });
    expect(shown.imagePath).toMatch(/disk\.raw$/);
    await holds("web@lsn:1", stateOne());
    const again = await server.clone("web", "lsn:1", "third");
    await server.ended(again.job);
    await holds("third", stateOne());
  });

  test("is read and written while nothing of it is here yet", async () => {
    await twoStates();
    const { volume } = await server.clone("disk0", "one", "cold", { residency: "tiered", size: "40M" });
    expect(volume.sizeBytes).toBe(40 * MiB);
    expect((await server.volume("cold")).past?.extents).toMatchObject({ total: 10, local: 0 });
    expect((await server.volume("cold")).imagePath).toMatch(/\.partial$/);
    await server.write("cold", MiB + 100, Buffer.alloc(1000, 8));
    const expected = Buffer.concat([stateOne(), Buffer.alloc(8 * MiB)]);
    expected.fill(8, MiB + 100, MiB + 1100);
    await holds("cold", expected);
    const job = await server.ok<ApiJob>("POST", "/volumes/cold/fill");
    expect(await server.ended(job)).toMatchObject({ state: "done", kind: "fill" });
    expect((await server.volume("cold")).past?.extents).toMatchObject({ local: 10, remote: 0 });
    await holds("cold", expected);
    const status = await server.connect("cold", ["varve:residency"]);
    expect((await status.blockStatus(0, 40 * MiB)).get("varve:residency")).toMatchObject([
      { length: 40 * MiB, flags: 0 },
    ]);
    await status.disconnect();
  });

  test("of a point that left, or that is not there, makes nothing", async () => {
    await twoStates();
    expect((await server.refused("POST", "/volumes/disk0/clones", { name: "a", point: "none" })).kind).toBe(
      "Invalid",
    );
    expect(await server.ok<unknown[]>("GET", "/volumes")).toHaveLength(1);
    expect((await server.volume("disk0")).past?.pins).toBe(0);
  });

  test("keeps its parent from being deleted until it is filled; a deleted clone gives the pin back", async () => {
    await twoStates();
    await server.clone("disk0", "one", "cold", { residency: "tiered" });
    expect((await server.volume("disk0")).past?.pins).toBe(1);
    expect(await server.refused("DELETE", "/volumes/disk0")).toMatchObject({ tag: "VolumeNeededError" });
    await holds("disk0", stateTwo());
    await server.ok("DELETE", "/volumes/cold");
    expect((await server.volume("disk0")).past?.pins).toBe(0);
    await server.ok("DELETE", "/volumes/disk0");
    expect(await server.ok<unknown[]>("GET", "/volumes")).toEqual([]);
  });
});

describe("rollback", () => {
  test("back, forward, and back again; what was written since stays", async () => {
    await twoStates();
    const then = (await server.volume("disk0")).figures?.durableLsn ?? 0;
    const text = (await varve(["volume", "rollback", "disk0", "--to", "one", ...server.api])).stdout;
    expect(text).toMatch(/^disk0 is what it was at entry \d+, .*: 32M$/m);
    await holds("disk0", stateOne());
    await server.write("disk0", 30 * MiB, Buffer.alloc(4096, 5));
    const third = stateOne().fill(5, 30 * MiB, 30 * MiB + 4096);
    const { lsn } = await server.snapshot("disk0", "third");
    await server.rollback("disk0", `lsn:${then}`);
    await holds("disk0", stateTwo());
    await server.rollback("disk0", "third");
    await holds("disk0", third);
    await holds("disk0@one", stateOne());
    await holds(`disk0@lsn:${then}`, stateTwo());
    await holds(`disk0@lsn:${lsn}`, third);
    const history = await server.history("disk0");
    expect(history.intervals.flatMap((one) => one.events).join(" ")).toContain(`lsn:${then}`);
  });

  test("brings the size back, too", async () => {
    await twoStates();
    await server.ok("POST", "/volumes/disk0/resize", { size: "48M" });
    await server.write("disk0", 47 * MiB, Buffer.alloc(4096, 6));
    const grown = (await server.volume("disk0")).figures?.durableLsn ?? 0;
    const { volume } = await server.rollback("disk0", "one");
    expect(volume.sizeBytes).toBe(32 * MiB);
    await holds("disk0", stateOne());
    expect((await server.rollback("disk0", `lsn:${grown}`)).volume.sizeBytes).toBe(48 * MiB);
    expect((await server.read("disk0", 47 * MiB, 4096)).every((byte) => byte === 6)).toBe(true);
  });

  test("is refused while a client is attached, unless forced", async () => {
    await twoStates();
    const client = await server.connect("disk0");
    const point = await server.connect("disk0@one");
    const refused = await server.refused("POST", "/volumes/disk0/rollback", { point: "one" });
    expect(refused).toMatchObject({ tag: "VolumeAttachedError" });
    expect(refused.hint).toContain("--force");
    await client.write(0, Buffer.alloc(4096, 1));
    const { stdout } = await varve(["volume", "rollback", "disk0", "--to", "one", "--force", ...server.api]);
    expect(stdout).toMatch(/^cut 1 connection$/m);
    await expect(client.read(0, 4096)).rejects.toThrow();
    expect((await point.read(0, 4096)).equals(first.subarray(0, 4096))).toBe(true);
    await point.disconnect();
    await holds("disk0", stateOne());
  });
});

describe("over a restart", () => {
  test.each(["stop", "kill"] as const)(
    "%s: snapshots, clones, rollback and policy are still there",
    async (how) => {
      await twoStates();
      await varveJson(["volume", "set", "disk0", "--history", "2d", "--cold-after", "12h", ...server.api]);
      await server.clone("disk0", "one", "cold", { residency: "tiered" });
      await server.write("cold", 6 * MiB, Buffer.alloc(4096, 4));
      await server.snapshot("disk0", "two");
      await server.rollback("disk0", "one");
      await server.write("disk0", 10 * MiB, Buffer.alloc(4096, 3));
      await (how === "stop" ? server.stop() : server.kill());
      await server.up();
      const names = (await server.ok<ApiSnapshot[]>("GET", "/volumes/disk0/snapshots")).map(
        (one) => one.name,
      );
      expect(names).toEqual(["one", "two"]);
      await holds("disk0@two", stateTwo());
      await holds("disk0@one", stateOne());
      await holds("disk0", stateOne().fill(3, 10 * MiB, 10 * MiB + 4096));
      await holds("cold", stateOne().fill(4, 6 * MiB, 6 * MiB + 4096));
      expect((await server.volume("disk0")).past).toMatchObject({ history: "2d", coldAfter: "12h" });
      expect((await server.volume("cold")).past).toMatchObject({
        residency: "tiered",
        origin: { name: "disk0" },
      });
    },
  );

  test("a fill that kill -9 ended goes on", async () => {
    await twoStates();
    await server.clone("disk0", "one", "cold", { residency: "tiered" });
    await server.ok("PATCH", "/volumes/cold", { residency: "full" });
    await server.kill();
    await server.up();
    await server.until("every extent is local", async () => {
      const { past } = await server.volume("cold");
      return past?.extents?.local === past?.extents?.total ? true : null;
    });
    await holds("cold", stateOne());
    await server.stop();
    // Promise 7: after a clean stop the file is the disk.
    const image = join(server.dataDir, "volumes", "cold", "disk.raw");
    const wanted = server.file("wanted.raw", stateOne());
    await succeed("cmp", image, wanted);
  });
});

test("without its bucket a volume that needs it is not served, the others are", async () => {
  await twoStates();
  await server.clone("disk0", "one", "cold", { residency: "tiered" });
  await server.stop();
  const without = await server.up({ args: ["--bucket", "none"] });
  const { condition, failure } = await server.volume("cold");
  expect(condition).toBe("failed");
  expect(failure).toMatchObject({ tag: "BucketNeededError", fields: { remoteExtents: 8 } });
  expect(without.output()).toContain(
    "volume cold is not served: volume cold has 8 of its 8 extents in a bucket only",
  );
  await holds("disk0", stateTwo());
  await server.stop();
  await server.up();
  await holds("cold", stateOne());
});

test("a bucket that is away at start keeps no disk from being served, and what is in the log opens", async () => {
  await twoStates();
  await server.stop();
  const bucket = join(server.dataDir, "bucket");
  renameSync(bucket, `${bucket}.away`);
  writeFileSync(bucket, "not a directory");
  await expect(server.up()).rejects.toThrow(/bucket/);
  await succeed("rm", bucket);
  renameSync(`${bucket}.away`, bucket);
  await server.up({
    args: ["--bucket", "s3://nobody/there?endpoint=http://127.0.0.1:1"],
    env: noCredentials,
  });
  await holds("disk0", stateTwo());
  await server.write("disk0", 20 * MiB, Buffer.alloc(4096, 2));
  expect((await server.volume("disk0")).past?.archive).toBe("away");
  expect((await server.refused("POST", "/volumes/disk0/rollback", { point: "lsn:1" })).kind).toBe("Retry");
  const { name } = await server.snapshot("disk0", "meanwhile");
  expect(name).toBe("meanwhile");
  await server.stop();
  await server.up();
  await holds("disk0@one", stateOne());
  expect((await server.read("disk0@meanwhile", 20 * MiB, 4096)).every((byte) => byte === 2)).toBe(true);
});

const noCredentials = { AWS_ACCESS_KEY_ID: "nobody", AWS_SECRET_ACCESS_KEY: "nothing" };
