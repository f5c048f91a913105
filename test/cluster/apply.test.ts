// The lab file of docs/specs/apply.md against a real cluster: made as it says, nothing to do the second time, grown while it is served, pruned
// with its guards; scheduled snapshots are taken once by two apis, and go on when the one that took them is killed.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { ApiNode } from "#shared/api/cluster-api.ts";
import type { ApiVolume } from "#shared/api/http-api.ts";
import type { ApiSnapshot } from "#shared/api/past-api.ts";
import { attach, type ClusterProcess } from "../tools/cluster-process.ts";
import { freePort } from "../tools/free-port.ts";
import { varve } from "../tools/varve-command.ts";
import { repositoryDir } from "../tools/varve-process.ts";
import { PastLab } from "./past-lab.ts";

const page = readFileSync(join(repositoryDir, "docs/specs/apply.md"), "utf8");
const example = /^```yaml\n([^]*?)^```/m.exec(page)?.[1] ?? "";

let past: PastLab;
let apis: { readonly process: ClusterProcess; readonly url: string }[] = [];

beforeEach(async () => {
  past = await PastLab.start();
  apis = [];
  for (const name of ["front-1", "front-2"]) {
    const http = `127.0.0.1:${await freePort()}`;
    const settings = { http, health: "off", bucket: past.bucketUrl };
    apis.push({ process: await past.lab.start("api", name, settings), url: `http://${http}` });
  }
});

afterEach(async () => {
  await past.close();
});

const command = async (...words: readonly string[]) => varve(words, { VARVE_API: apis.at(-1)?.url ?? "" });
async function json<T>(...words: readonly string[]): Promise<T> {
  const { code, stdout, stderr } = await command(...words, "--json");
  expect([code, stderr]).toEqual([0, ""]);
  return JSON.parse(stdout) as T;
}
async function apply(text: string, ...flags: readonly string[]) {
  const file = join(past.lab.directory, "lab.yaml");
  writeFileSync(file, text);
  return await command("apply", "-f", file, ...flags);
}
const snapshotsOf = async (name: string): Promise<readonly string[]> =>
  (await json<readonly ApiSnapshot[]>("snapshot", "list", name)).map((one) => one.name.split(".")[0] ?? "");

test("a cluster becomes what the page's file says", async () => {
  await past.lab.storage("shelf");
  const early = await apply(example);
  expect([early.code, early.stderr]).toEqual([
    2,
    expect.stringContaining("lab.yaml:7: nodes.attic was never"),
  ]);
  await past.lab.storage("attic");
  await expect.poll(async () => json("node", "list"), { timeout: 15_000 }).toHaveLength(2);
  expect(await json("volume", "list")).toEqual([]);

  expect((await apply(example, "--dry-run")).stdout).toBe(`node shelf: pool main: quota 500G, tags ssd
node attic: pool main: quota none, tags ssd; slow
volume disk0: create, 64M
volume scratch: create, 32M
`);
  expect(await json("volume", "list")).toEqual([]);
  expect(await apply(example)).toMatchObject({ code: 0, stderr: "" });
  expect(await apply(example)).toMatchObject({ code: 0, stdout: "nothing to do\n" });
  const [attic, shelf] = await json<readonly ApiNode[]>("node", "list");
  expect([attic?.pools[0]?.tags, shelf?.pools[0]?.quotaBytes]).toEqual([["ssd", "slow"], 500 * 2 ** 30]);
  const orders = { lab: "home", tags: ["ssd"], logReplicas: 1 };
  expect(await json("volume", "list")).toMatchObject([{ name: "disk0", reads: "strict", orders }, {}]);

  // Served: snapshots are taken, by one of the two apis, once a slot.
  const gate = await past.lab.gateway("gate-1");
  const client = await attach(gate.port);
  await client.write(0, Buffer.alloc(4096, 1));
  const taken = async (): Promise<readonly string[]> => [...(await snapshotsOf("disk0"))].sort();
  await expect.poll(taken, { timeout: 20_000, interval: 500 }).toEqual(["daily", "hourly"]);

  // The api that took them is gone: the other one goes on. The volume grows under its client, a new replica gives way to tags.
  await apis[0]?.process.kill();
  const grown = example
    .replace("size: 64M", "size: 96M")
    .replace("every: 1d, keep: 7 }", "every: 1d, keep: 7 }\n      minutely: { every: 1m, keep: 3 }")
    .replace(/ {2}scratch:\n.*\n/, "");
  expect(await command("volume", "create", "byhand", "--size", "16M")).toMatchObject({ code: 0 });
  const done = await apply(grown);
  expect(done.code).toBe(0);
  expect(done.stdout.split("\n")).toHaveLength(3);
  expect(done.stderr).toContain("scratch was made by lab home and is not in the file");
  expect(await json<ApiVolume>("volume", "show", "disk0")).toMatchObject({ sizeBytes: 96 * 2 ** 20 });
  await expect.poll(taken, { timeout: 25_000, interval: 500 }).toContain("minutely");

  // Pruned is what this lab made; not what is served, nor what was made by hand.
  expect(await apply("lab: home\n", "--prune")).toMatchObject({
    code: 75,
    stderr: expect.stringContaining("volume disk0 is served by gateway gate-1"),
  });
  expect(await apply(grown, "--prune")).toMatchObject({
    code: 0,
    stdout: "volume scratch: delete with all its data: done\n",
  });
  const left = (await json<readonly ApiVolume[]>("volume", "list")).filter(
    ({ condition }) => condition !== "deleting",
  );
  expect(left.map(({ name }) => name)).toEqual(["byhand", "disk0"]);
  await client.disconnect();
}, 120_000);
