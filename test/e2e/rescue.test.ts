// A machine is lost: everything comes back from the bucket alone, by real processes and clients. The old machine, when it
// returns, stops. A rescue that is killed is run again. Deleted volumes come back.
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { ApiDeletedVolume } from "#shared/api/bucket-api.ts";
import type { ApiJob } from "#shared/api/past-api.ts";
import { bytesOf, PastServer } from "../tools/past-server.ts";
import { contentOf, varve, varveJson } from "../tools/varve-command.ts";

const MiB = 1024 * 1024;
const first = bytesOf(1, 6 * MiB);
const second = bytesOf(2, MiB);

interface Rescued {
  readonly rescued: readonly { readonly name: string; readonly lsn: number; readonly lineNumber: number }[];
  readonly kept: readonly string[];
  readonly failed: readonly { readonly name: string; readonly error: { readonly message: string } }[];
}

let home = "";
let url = "";
const servers: PastServer[] = [];

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "varve-rescue-"));
  url = `file://${home}/bucket`;
});
afterEach(async () => {
  for (const server of servers.splice(0)) await server.end();
  rmSync(home, { recursive: true, force: true });
});

async function machine(volumes: readonly string[], dataDir?: string): Promise<PastServer> {
  const more = dataDir === undefined ? {} : { dataDir };
  const server = await PastServer.start(volumes, { args: ["--bucket", url], ...more });
  servers.push(server);
  return server;
}

/** A machine with two volumes and a snapshot, stopped in good order: everything is archived. */
async function livedMachine(): Promise<PastServer> {
  const old = await machine(["disk0:32M", "empty:8M"]);
  await old.write("disk0", 0, first);
  await old.snapshot("disk0", "one");
  await old.write("disk0", 2 * MiB, second);
  await old.ok("PATCH", "/volumes/disk0", { history: "3d", residency: "tiered", coldAfter: "9d" });
  await old.stop();
  return old;
}

const rescue = async (data: string): Promise<Rescued> =>
  await varveJson<Rescued>(["rescue", "--bucket", url, "--data", data]);

describe("a lost machine", () => {
  test("comes back from the bucket alone, with its snapshots and its past, and goes on", async () => {
    const old = await livedMachine();
    rmSync(old.dataDir, { recursive: true });
    const data = join(home, "data");
    const dry = await varve(["rescue", "--bucket", url, "--data", data, "--dry-run"]);
    expect(dry.stdout).toMatch(/^disk0: 32M, entry \d+, 20/m);
    expect(readdirSync(home)).toEqual(["bucket"]);
    const { rescued, failed } = await rescue(data);
    expect(failed).toEqual([]);
    expect(rescued.map(({ name, lineNumber }) => [name, lineNumber])).toEqual([
      ["disk0", 2],
      ["empty", 2],
    ]);
    const after = await machine([], data);
    expect((await after.read("disk0", 0, 2 * MiB)).equals(first.subarray(0, 2 * MiB))).toBe(true);
    expect((await after.read("disk0", 2 * MiB, MiB)).equals(second)).toBe(true);
    expect((await after.read("disk0", 3 * MiB, 3 * MiB)).equals(first.subarray(3 * MiB))).toBe(true);
    expect((await after.read("disk0@one", 0, 6 * MiB)).equals(first)).toBe(true);
    expect((await after.read("empty", 0, MiB)).every((byte) => byte === 0)).toBe(true);
    expect((await after.volume("disk0")).past).toMatchObject({
      history: "3d",
      residency: "tiered",
      coldAfter: "9d",
    });
    // It goes on: written, archived on the new line, checked, and rescued once more.
    await after.write("disk0", 20 * MiB, second);
    await after.stop();
    const checked = await varve(["bucket", "check", "--bucket", url]);
    expect(checked.stdout).toContain("all is there");
    expect(checked.code).toBe(0);
    const again = join(home, "again");
    expect((await rescue(again)).rescued.map((one) => one.lineNumber)).toEqual([3, 3]);
    const third = await machine([], again);
    expect((await third.read("disk0", 20 * MiB, MiB)).equals(second)).toBe(true);
    expect((await third.read("disk0", 0, 2 * MiB)).equals(first.subarray(0, 2 * MiB))).toBe(true);
    expect((await third.read("disk0@one", 0, 6 * MiB)).equals(first)).toBe(true);
  });

  test("the old machine, when it comes back, stops with a clear message and changes nothing in the bucket", async () => {
    const old = await livedMachine();
    await rescue(join(home, "data"));
    const before = contentOf(join(home, "bucket", "volumes"));
    // Asked for by name, it ends the start; else the others are served and this one is not.
    await expect(old.up()).rejects.toThrow("rescued elsewhere");
    const up = await old.up({ volumes: [] });
    const volume = await old.volume("disk0");
    expect(volume.condition).toBe("failed");
    expect(volume.failure).toMatchObject({ kind: "Fenced" });
    expect(volume.failure?.message).toContain("rescued elsewhere");
    expect(up.output()).toContain("rescued elsewhere");
    await expect(old.connect("disk0")).rejects.toThrow();
    await old.stop();
    expect(contentOf(join(home, "bucket", "volumes"))).toBe(before);
  });

  test("an old machine that still runs stops when it wants to publish", async () => {
    const old = await machine(["disk0:32M"]);
    await old.write("disk0", 0, first);
    await old.stop();
    await old.up();
    await rescue(join(home, "data"));
    await old.write("disk0", 0, second);
    await old.call("POST", "/volumes/disk0/snapshots", { name: "late" });
    await old.until("the old machine stopped serving", async () => {
      const { condition, failure } = await old.volume("disk0");
      return condition === "failed" && failure?.message.includes("rescued elsewhere") === true ? true : null;
    });
  });

  test("a data directory that is started with another bucket is not archived to it, and says so; with the right one it goes on", async () => {
    await livedMachine();
    const data = join(home, "data");
    // Its log begins behind what the bucket holds.
    await rescue(data);
    const server = await machine([], data);
    const job = await server.ok<ApiJob>("POST", "/volumes/disk0/fill");
    expect((await server.ended(job)).state).toBe("done");
    await server.stop();
    const other = join(home, "other");
    mkdirSync(other);
    const up = await server.up({ args: ["--bucket", `file://${other}`] });
    const { past } = await server.volume("disk0");
    expect(past).toMatchObject({
      archive: "away",
      archiveError: { tag: "OtherBucketError", kind: "Corrupt" },
    });
    expect(up.output()).toMatch(
      /warning: volume disk0 is not archived: .*other has entries up to 0, the log here begins at \d+: this is not the bucket/,
    );
    expect(up.output()).toContain("hint: Is it mounted, is the URL right, is it an old copy?");
    const shown = await varve(["volume", "show", "disk0", ...server.api]);
    expect(shown.stdout).toMatch(/^archive trouble +volume disk0: the bucket .*\/other has entries up to 0/m);
    // It is served, and takes writes; what needs the bucket says why it has none.
    expect((await server.read("disk0", 2 * MiB, MiB)).equals(second)).toBe(true);
    await server.write("disk0", 8 * MiB, second);
    const refused = await server.refused("POST", "/volumes/disk0/clones", { name: "copy", point: "one" });
    expect(refused.message).toContain("this is not the bucket that holds what lies between");
    await server.stop();
    expect(existsSync(join(other, "volumes"))).toBe(false);

    await server.up({ args: ["--bucket", url] });
    expect((await server.volume("disk0")).past).toMatchObject({ archive: "running", archiveError: null });
    expect((await server.read("disk0", 8 * MiB, MiB)).equals(second)).toBe(true);
    await server.stop();
    expect((await varve(["bucket", "check", "--bucket", url])).code).toBe(0);
  });

  test("a rescue that is killed is run again; a directory in use is refused", async () => {
    await livedMachine();
    const data = join(home, "data");
    // As a kill between the first and the second volume leaves it.
    await rescue(data);
    writeFileSync(join(data, "rescue.json"), `${JSON.stringify({ bucket: url })}\n`);
    const catalog = await varveJson<readonly { name: string }[]>(["volume", "list", "--data", data]);
    expect(catalog.map((one) => one.name)).toEqual(["disk0", "empty"]);
    // By a server without the bucket, which so does not know of it.
    const bare = await PastServer.start([], { args: ["--bucket", "none"], dataDir: data });
    servers.push(bare);
    await bare.ok("DELETE", "/volumes/empty");
    await bare.stop();
    const outcome = await rescue(data);
    expect(outcome.kept).toEqual(["disk0"]);
    expect(outcome.rescued.map(({ name, lineNumber }) => [name, lineNumber])).toEqual([["empty", 3]]);
    const refused = await varve(["rescue", "--bucket", url, "--data", data]);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain("has volumes");
    const foreign = join(home, "foreign");
    const stranger = await varve(["rescue", "--bucket", `file://${home}/nothing`, "--data", foreign]);
    expect(stranger.code).toBe(2);
    expect(readdirSync(home).sort()).toEqual(expect.not.arrayContaining(["foreign"]));
  });
});

describe("a bucket's housekeeping on a served volume", () => {
  test("a deleted volume is listed and comes back with its bytes", async () => {
    const server = await machine(["disk0:32M", "other:8M"]);
    await server.write("disk0", 0, first);
    const deleted = await varve(["volume", "delete", "disk0", ...server.api]);
    expect(deleted.code).toBe(0);
    const list = await varveJson<readonly ApiDeletedVolume[]>(["volume", "list", "--deleted", ...server.api]);
    expect(list.map((one) => one.name)).toEqual(["disk0"]);
    const wrong = await varve(["volume", "undelete", "other", ...server.api]);
    expect(wrong.stderr).toContain("Deleted volumes: disk0");
    const back = await varve(["volume", "undelete", "disk0", ...server.api]);
    expect(back.stdout).toMatch(/^disk0: 32M, entry \d+/);
    expect((await server.read("disk0", 0, 6 * MiB)).equals(first)).toBe(true);
    await server.write("disk0", 9 * MiB, second);
    expect(await varveJson(["volume", "list", "--deleted", ...server.api])).toEqual([]);
    // Its name is taken meanwhile: it comes back under another one, which the bucket knows, too.
    expect((await varve(["volume", "delete", "disk0", ...server.api])).code).toBe(0);
    await varve(["volume", "create", "disk0", "--size", "8M", ...server.api]);
    const taken = await varve(["volume", "undelete", "disk0", ...server.api]);
    expect([taken.code, taken.stderr]).toEqual([
      2,
      expect.stringContaining(
        "hint: Bring the deleted one back under another name: varve volume undelete disk0 --as OTHER.",
      ),
    ]);
    const as = await varve(["volume", "undelete", "disk0", "--as", "disk1", ...server.api]);
    expect(as.stdout).toMatch(/^disk1: 32M, entry \d+/);
    expect((await server.read("disk1", 9 * MiB, second.length)).equals(second)).toBe(true);
    await server.stop();
    expect((await varve(["bucket", "check", "--bucket", url])).code).toBe(0);
    const outcome = await rescue(join(home, "renamed"));
    expect(outcome.rescued.map(({ name }) => name).sort()).toEqual(["disk0", "disk1", "other"]);
  });

  test("a deletion that the bucket loses, with the process killed: nothing of the volume is lost", async () => {
    const more = { args: ["--bucket", url], env: { VARVE_TEST_SETTLE_MS: "4000" } };
    const server = await PastServer.start(["disk0:16M", "other:8M"], more);
    servers.push(server);
    await server.write("disk0", 0, second);
    const deleting =
      /^deleted disk0; its files stay, and its name is taken: deleting, \d+ s until the bucket holds it\n$/;
    expect((await varve(["volume", "delete", "disk0", ...server.api])).stdout).toMatch(deleting);
    expect((await varve(["volume", "list", ...server.api])).stdout).toMatch(/disk0 .* deleting, \d+ s until/);
    const taken = await varve(["volume", "create", "disk0", "--size", "8M", ...server.api]);
    expect(taken.stderr).toContain(
      "volume disk0 was deleted; its files stay until the bucket holds all of it",
    );
    expect((await varve(["volume", "undelete", "disk0", ...server.api])).code).toBe(0);
    expect((await server.read("disk0", 0, second.length)).equals(second)).toBe(true);
    await server.write("disk0", 2 * MiB, second);

    const objects = (): string[] => readdirSync(join(home, "bucket"), { recursive: true, encoding: "utf8" });
    const before = new Set(objects());
    expect((await varve(["volume", "delete", "disk0", ...server.api])).stdout).toMatch(deleting);
    await server.kill();
    const lost = objects().filter((name) => name.startsWith("volumes/") && !before.has(name));
    expect(lost.some((name) => name.endsWith(".seg"))).toBe(true);
    for (const name of lost) rmSync(join(home, "bucket", name), { recursive: true });

    const offline = await varve(["volume", "delete", "disk0", "--data", server.dataDir]);
    expect([offline.code, offline.stderr]).toEqual([75, expect.stringContaining("no server runs")]);
    await server.up({ volumes: [] });
    expect(await varveJson(["volume", "show", "disk0", ...server.api])).toMatchObject({
      condition: "deleting",
    });
    const directory = join(server.dataDir, "volumes", "disk0");
    expect(existsSync(directory)).toBe(true);
    await expect.poll(() => existsSync(directory), { timeout: 20_000 }).toBe(false);
    const back = await varve(["volume", "undelete", "disk0", ...server.api]);
    expect(back.stdout).toMatch(/^disk0: 16M, entry \d+/);
    const whole = await server.read("disk0", 0, 4 * MiB);
    expect(whole.subarray(0, MiB).equals(second) && whole.subarray(2 * MiB, 3 * MiB).equals(second)).toBe(
      true,
    );
  });

  test("a bucket's directory that is missing is not made anew once there are volumes, nor by a command that reads", async () => {
    const server = await machine(["disk0:32M"]);
    await server.stop();
    const missing = server.path("not-mounted");
    const wrong = `file://${missing}`;
    const commands = [
      ["up", "--data", server.dataDir, "--nbd", server.nbd, "--bucket", wrong],
      ["bucket", "check", "--bucket", wrong],
      ["rescue", "--bucket", wrong, "--data", server.path("empty")],
    ];
    for (const command of commands) {
      const { code, stderr } = await varve(command);
      expect([code, stderr]).toEqual([2, expect.stringContaining("no such directory")]);
      expect(existsSync(missing)).toBe(false);
    }
  });

  test("check names what is missing and damaged, usage and collect report", async () => {
    const server = await machine(["disk0:32M"]);
    await server.write("disk0", 0, first);
    await server.stop();
    const limits = ["--bucket-max", "1G", "--fill-rate", "20M"];
    await server.up({ args: ["--bucket", url, ...limits] });
    const usage = await varve(["bucket", "usage", ...server.api]);
    expect(usage.stdout).toMatch(/^disk0 +segment +\d+/m);
    expect(usage.stdout).toMatch(/^disk0 +7d +1 +\d+ +0$/m);
    expect(usage.stdout).toMatch(/^size +1 GiB at most, then the oldest history goes$/m);
    expect(usage.stdout).toMatch(/^uploads +no limit$/m);
    expect(usage.stdout).toMatch(/^downloads +no limit$/m);
    expect(usage.stdout).toMatch(/^fills +20 MiB\/s at most$/m);
    const shown = await varve(["volume", "show", "disk0", ...server.api]);
    expect(shown.stdout).toMatch(/^history +7d, 0 snapshots, every moment from entry 1 on$/m);
    expect(shown.stdout).toMatch(/^fill rate +20 MiB\/s at most$/m);
    expect(shown.stdout).toMatch(/^log on disk +\d+ MiB of [0-9.]+ [GM]iB at most$/m);
    const collected = await varveJson<{ deleted: number }>(["bucket", "collect", "--dry-run", ...server.api]);
    expect(collected.deleted).toBe(0);
    expect((await varve(["bucket", "check", "--quick", ...server.api])).code).toBe(0);
    const volumeDir = join(home, "bucket", "volumes", readdirSync(join(home, "bucket", "volumes"))[0] ?? "");
    const segments = readdirSync(join(volumeDir, "log")).map((name) => join(volumeDir, "log", name));
    const file = openSync(segments[0] ?? "", "r+");
    writeSync(file, Buffer.from("damage"), 0, 6, 4096);
    const damaged = await varve(["bucket", "check", ...server.api]);
    expect(damaged.code).toBe(1);
    expect(damaged.stdout).toMatch(/\.seg is damaged: .*SHA-256/);
    rmSync(segments[0] ?? "");
    const missing = await varve(["bucket", "check", "--quick", "--bucket", url]);
    expect(missing.code).toBe(1);
    expect(missing.stdout).toContain("is named, but not in the bucket");
  });
});
