// `varve image check|adopt|discard` and `varve log inspect` on a real data directory: another program writes into an image
// while Varve is stopped. The volume is then refused, the change is kept or thrown away, by the files or by a running
// server, and the disk that clients see is the one that was chosen. A whole guest doing this: test/boot.
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { ApiImageReport, ApiVolume } from "#shared/api/http-api.ts";
import { freePort } from "../tools/free-port.ts";
import { NbdClient } from "../tools/nbd-client.ts";
import { contentOf, inTemporaryDirectory, run, varve, varveJson } from "../tools/varve-command.ts";
import { repositoryDir, VarveProcess } from "../tools/varve-process.ts";

const original = Buffer.alloc(8192, "original ");
const foreign = Buffer.from("written behind Varve's back");
const foreignAt = 1000;
const changed = Buffer.from(original);
changed.set(foreign, foreignAt);

interface Place {
  readonly data: string;
  readonly image: string;
  readonly nbd: string;
}

/** A stopped data directory whose image somebody else wrote into. */
async function withChangedImage(work: (place: Place) => Promise<void>): Promise<void> {
  await inTemporaryDirectory(async (directory) => {
    const data = join(directory, "data");
    const nbd = `unix:${join(directory, "nbd.sock")}`;
    const server = await VarveProcess.start({ dataDir: data, nbd: [nbd], volumes: ["disk0:8M"] });
    const client = await NbdClient.connect(nbd, "disk0");
    await client.write(0, original);
    await client.disconnect();
    await server.stop();
    const image = join(data, "volumes", "disk0", "disk.raw");
    const file = openSync(image, "r+");
    writeSync(file, foreign, 0, foreign.length, foreignAt);
    closeSync(file);
    await work({ data, image, nbd });
  });
}

async function served(place: Place): Promise<Buffer> {
  const server = await VarveProcess.start({ dataDir: place.data, nbd: [place.nbd], volumes: ["disk0:8M"] });
  const client = await NbdClient.connect(place.nbd, "disk0");
  const found = await client.read(0, original.length);
  await client.disconnect();
  await server.stop();
  return found;
}

describe("an image that another program changed", () => {
  test("is refused by name, and a check says so and changes nothing", async () => {
    await withChangedImage(async ({ data, image, nbd }) => {
      const refused = await varve([
        "up",
        "--data",
        data,
        "--nbd",
        nbd,
        "--http",
        "off",
        "--volume",
        "disk0:8M",
      ]);
      expect(refused.code).toBe(2);
      expect(refused.stderr).toContain(
        `varve: ${image} was changed while Varve did not hold it: it was written to`,
      );
      const before = contentOf(join(data, "volumes"));
      const check = await varve(["image", "check", "disk0", "--data", data]);
      expect(check.code).toBe(1);
      expect(check.stdout).toContain("`varve image adopt disk0` keeps the change");
      const report = await varve(["image", "check", "disk0", "--data", data, "--json"]);
      expect(JSON.parse(report.stdout)).toMatchObject({ name: "disk0", clean: false });
      expect(contentOf(join(data, "volumes"))).toBe(before);
    });
  });

  test("adopt keeps the change: it becomes entries of the log", async () => {
    await withChangedImage(async (place) => {
      const adopted = await varveJson<ApiImageReport>(["image", "adopt", "disk0", "--data", place.data]);
      expect(adopted.name).toBe("disk0");
      expect((await served(place)).equals(changed)).toBe(true);
      expect((await varve(["image", "check", "disk0", "--data", place.data])).stdout).toContain(
        "is in order",
      );
      // What was adopted is in the log: an image that is thrown away after it comes back with the change.
      await run("truncate", ["-s", "0", place.image]);
      expect((await varve(["image", "discard", "disk0", "--data", place.data])).code).toBe(0);
      expect((await served(place)).equals(changed)).toBe(true);
    });
  });

  test("discard throws it away: the image is the fold of the log again", async () => {
    await withChangedImage(async (place) => {
      expect((await varve(["image", "discard", "disk0", "--data", place.data])).code).toBe(0);
      expect(readFileSync(place.image).subarray(0, original.length).equals(original)).toBe(true);
      expect((await served(place)).equals(original)).toBe(true);
    });
  });

  test("a running server serves the others, and this one as soon as it is adopted", async () => {
    await withChangedImage(async ({ data, nbd }) => {
      const http = `127.0.0.1:${await freePort()}`;
      const api = ["--api", http];
      const server = await VarveProcess.start({ dataDir: data, nbd: [nbd], http, volumes: ["other:8M"] });
      const failed = await varveJson<ApiVolume>(["volume", "show", "disk0", ...api]);
      expect(failed).toMatchObject({ condition: "failed", failure: { tag: "ImageChanged" } });
      expect((await varve(["image", "adopt", "disk0", ...api])).code).toBe(0);
      const client = await NbdClient.connect(nbd, "disk0");
      expect((await client.read(0, original.length)).equals(changed)).toBe(true);
      await client.disconnect();
      await server.stop();
    });
  });
});

describe("log inspect", () => {
  test("a reader that takes its time gets all of it, longer than a pipe holds", async () => {
    await withChangedImage(async ({ data }) => {
      const slow = `"$1" log inspect disk0 --data "$2" --json | (sleep 2; cat)`;
      const { code, stdout } = await run("sh", ["-c", slow, "sh", join(repositoryDir, "bin", "varve"), data]);
      expect(code).toBe(0);
      expect(stdout.length).toBeGreaterThan(65_536);
      expect(JSON.parse(stdout)).toMatchObject({ summary: { lastLsn: 2 } });
    });
  });

  test("shows every batch of a healthy log, and changes nothing", async () => {
    await withChangedImage(async ({ data }) => {
      const log = join(data, "volumes", "disk0", "log");
      const before = contentOf(log);
      const text = await varve(["log", "inspect", "disk0", "--data", data]);
      expect(text.code).toBe(0);
      expect(text.stdout).toMatch(/entries 1, epoch 1, \S+, 4096 bytes: epoch, written by /);
      expect(text.stdout).toMatch(/entries 2, epoch 1, \S+, \d+ bytes: write at 0, 8192 bytes/);
      expect(text.stdout).toMatch(/^verdict +Varve opens this log$/m);
      const json = await varveJson<{ summary: object; batches: object[] }>([
        "log",
        "inspect",
        "disk0",
        "--data",
        data,
      ]);
      expect(json.summary).toMatchObject({ oldestLsn: 1, lastLsn: 2, refusal: null, batchesNotShown: 0 });
      expect(json.batches).toMatchObject([
        { lastLsn: 1, entries: [{ kind: "epoch" }] },
        { lastLsn: 2, entries: [{ kind: "write", offset: 0, length: 8192 }] },
      ]);
      const few = await varve(["log", "inspect", "disk0", "--data", data, "--from", "2", "--count", "0"]);
      expect(few.stdout).toContain("1 more batches, see --from and --count");
      expect(contentOf(log)).toBe(before);
    });
  });

  test("says where a damaged log stops, and exits 1", async () => {
    await withChangedImage(async ({ data }) => {
      const segment = join(data, "volumes", "disk0", "log", "00000001.log");
      const file = openSync(segment, "r+");
      writeSync(file, Buffer.from([0]), 0, 1, 0);
      closeSync(file);
      const result = await varve(["log", "inspect", "disk0", "--data", data]);
      expect(result.code).toBe(1);
      expect(result.stdout).toMatch(/^verdict +refused: /m);
    });
  });
});
