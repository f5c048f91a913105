// The life of volumes by the command line, with a running server (--api) and without (--data): create, list, show, set,
// resize, delete, and the refusals that protect attached clients and held directories.
// Every wrong word and its message: bad-input.test.ts.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { ApiConnection, ApiStatus, ApiVolume } from "#shared/api/http-api.ts";
import { freePort } from "../tools/free-port.ts";
import { NbdClient } from "../tools/nbd-client.ts";
import { inTemporaryDirectory, varve, varveJson } from "../tools/varve-command.ts";
import { VarveProcess } from "../tools/varve-process.ts";

const MiB = 1024 * 1024;

describe("with a running server", () => {
  let directory = "";
  let nbd = "";
  let api: string[] = [];
  let server: VarveProcess;
  let remove: () => void = () => {};
  let removed: Promise<void> = Promise.resolve();

  beforeEach(async () => {
    const made = Promise.withResolvers<string>();
    removed = inTemporaryDirectory(async (path) => {
      made.resolve(path);
      await new Promise<void>((resolve) => {
        remove = resolve;
      });
    });
    directory = await made.promise;
    nbd = `unix:${join(directory, "nbd.sock")}`;
    const http = `127.0.0.1:${await freePort()}`;
    api = ["--api", `http://${http}`];
    server = await VarveProcess.start({
      dataDir: join(directory, "data"),
      nbd: [nbd],
      http,
      volumes: ["disk0:64M"],
    });
  });

  afterEach(async () => {
    await server.stop();
    remove();
    await removed;
  });

  test("volumes are made, shown, changed and deleted", async () => {
    const made = await varveJson<ApiVolume>([
      "volume",
      "create",
      "web",
      "--size",
      "32M",
      "--durability",
      "flush",
      ...api,
    ]);
    expect(made).toMatchObject({
      name: "web",
      sizeBytes: 32 * MiB,
      durability: "flush",
      condition: "serving",
    });
    expect(made.uris).toEqual([`nbd+unix:///web?socket=${join(directory, "nbd.sock")}`]);
    const listed = await varveJson<ApiVolume[]>(["volume", "list", ...api]);
    expect(listed.map((volume) => volume.name)).toEqual(["disk0", "web"]);

    const text = (await varve(["volume", "list", ...api])).stdout;
    expect(text).toMatch(/^NAME +SIZE +USED +LOG +DURABILITY +STATE +CLIENTS$/m);
    expect(text).toMatch(/^web +32M +\S+ \S+ +\S+ \S+ +flush +serving +0$/m);
    const shown = (await varve(["volume", "show", "web", ...api])).stdout;
    expect(shown).toContain(join(directory, "data", "volumes", "web", "disk.raw"));

    const set = await varveJson<ApiVolume>(["volume", "set", "web", "--durability", "write", ...api]);
    expect(set.durability).toBe("write");
    expect((await varve(["volume", "resize", "web", "--size", "48M", ...api])).stdout).toBe(
      "web has 48M now\n",
    );
    expect((await varve(["volume", "resize", "web", "--size", "16M", "--shrink", ...api])).code).toBe(0);
    expect((await varve(["volume", "delete", "web", ...api])).stdout).toBe("deleted web\n");
    expect(existsSync(join(directory, "data", "volumes", "web"))).toBe(false);
    expect((await varve(["volume", "show", "web", ...api])).code).toBe(2);
  });

  test("an attached volume is neither deleted, nor shrunk, nor set; it grows, and who reconnects sees it", async () => {
    const client = await NbdClient.connect(nbd, "disk0");
    await client.write(0, Buffer.from("kept"));
    for (const words of [
      ["delete", "disk0"],
      ["resize", "disk0", "--size", "32M", "--shrink"],
      ["set", "disk0", "--durability", "flush"],
    ]) {
      const refused = await varve(["volume", ...words, ...api]);
      expect(refused.code, words.join(" ")).toBe(2);
      expect(refused.stderr).toContain("volume disk0 has 1 connection");
    }
    const clients = await varveJson<ApiVolume & { connections: ApiConnection[] }>([
      "volume",
      "show",
      "disk0",
      ...api,
    ]);
    expect(clients.attachedClients).toBe(1);
    expect(clients.connections).toMatchObject([{ volume: "disk0" }]);

    const grown = await varve(["volume", "resize", "disk0", "--size", "128M", ...api]);
    expect(grown.stdout).toBe("disk0 has 128M now; attached clients see it when they reconnect\n");
    expect(client.size).toBe(64 * MiB);
    await client.disconnect();
    const again = await NbdClient.connect(nbd, "disk0");
    expect(again.size).toBe(128 * MiB);
    expect((await again.read(0, 4)).toString()).toBe("kept");
    await again.write(128 * MiB - 4, Buffer.from("tail"));
    expect((await again.read(64 * MiB, 4096)).equals(Buffer.alloc(4096))).toBe(true);
    await again.disconnect();
  });

  test("a second server on the directory is refused with the pid of the first, and so are offline commands", async () => {
    const data = join(directory, "data");
    for (const words of [
      ["up", "--data", data, "--nbd", `unix:${join(directory, "second.sock")}`, "--http", "off"],
      ["volume", "list", "--data", data],
      ["log", "inspect", "disk0", "--data", data],
    ]) {
      const refused = await varve(words);
      expect(refused.code, words.join(" ")).toBe(75);
      expect(refused.stderr).toContain(`varve: data directory ${data} is in use`);
      expect(refused.stderr).toContain(`Process ${server.pid} uses this data directory`);
    }
    const status = (await (await fetch(`${api[1]}/v1/status`)).json()) as ApiStatus;
    expect(status).toMatchObject({ pid: server.pid, volumes: 1, volumesFailed: [] });
  });
});

describe("on the files", () => {
  test("volumes are made, listed, changed and deleted, and a server then serves them", async () => {
    await inTemporaryDirectory(async (directory) => {
      const data = join(directory, "data");
      const nbd = [`unix:${join(directory, "nbd.sock")}`];
      await (await VarveProcess.start({ dataDir: data, nbd })).stop();
      const offline = ["--data", data];
      expect((await varve(["volume", "list", ...offline])).stdout).toContain("no volumes");
      for (const name of ["a", "b"]) {
        expect((await varve(["volume", "create", name, "--size", "16M", ...offline])).code).toBe(0);
      }
      expect((await varve(["volume", "resize", "a", "--size", "32M", ...offline])).stdout).toBe(
        "a has 32M now\n",
      );
      expect((await varve(["volume", "set", "a", "--durability", "flush", ...offline])).code).toBe(0);
      expect((await varve(["volume", "delete", "b", ...offline])).code).toBe(0);
      const listed = await varveJson<ApiVolume[]>(["volume", "list", ...offline]);
      expect(listed).toMatchObject([
        { name: "a", sizeBytes: 32 * MiB, durability: "flush", condition: "closed", figures: null },
      ]);
      const server = await VarveProcess.start({ dataDir: data, nbd });
      const client = await NbdClient.connect(nbd[0] ?? "", "a");
      expect(client.size).toBe(32 * MiB);
      await client.disconnect();
      await server.stop();
      const refused = await varve(["volume", "delete", "a", ...offline]);
      expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining("is archived in a bucket")]);
      const left = await varveJson<ApiVolume[]>(["volume", "list", ...offline]);
      expect(left.map((one) => one.name)).toEqual(["a"]);
    });
  });
});
