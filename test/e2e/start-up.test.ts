// Start, idle and stop of the real process: how fast it is ready, what it says, what it costs while nobody asks, and that a
// SIGTERM under load ends with 0 and with everything that was acknowledged. Kills and power cuts: test/crash, test/vm.
// Bounds are the promises of the first issue, so they hold on a busy machine too.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { BlockChecker } from "../tools/block-checker.ts";
import { freePort } from "../tools/free-port.ts";
import { NbdClient } from "../tools/nbd-client.ts";
import { inTemporaryDirectory, run, varve } from "../tools/varve-command.ts";
import { VarveProcess } from "../tools/varve-process.ts";

const MiB = 1024 * 1024;
const readyMsMax = 1500;
const idleShareMax = 0.01;
const idleMs = 8000;

const pause = async (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Connects as soon as somebody listens. */
async function connected(nbd: string): Promise<NbdClient> {
  for (let tries = 0; tries < 100; tries++) {
    const client = await NbdClient.connect(nbd, "disk0").catch(() => null);
    if (client !== null) return client;
    await pause(100);
  }
  throw new Error(`nobody listens on ${nbd}`);
}

describe("start", () => {
  test("an empty server is ready in time, and says what is served and how to use it", async () => {
    await inTemporaryDirectory(async (directory) => {
      const dataDir = join(directory, "data");
      const [nbd, http] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
      const readyMs: number[] = [];
      for (let start = 0; start < 3; start++) {
        const server = await VarveProcess.start({ dataDir, nbd: [nbd], http, volumes: ["disk0:1G"] });
        readyMs.push(server.readyAfterMs);
        const lines = server.output().trimEnd().split("\n");
        expect(lines.at(-1)).toBe("varve is ready");
        expect(server.output()).toContain(`-drive file=nbd://${nbd}/disk0,format=raw`);
        expect(server.output()).toContain(`varve attach disk0 --server ${nbd}\n`);
        expect(server.output()).toContain(`nbdinfo nbd://${nbd}/disk0`);
        expect(server.output()).toContain(join(dataDir, "volumes", "disk0", "disk.raw"));
        expect(server.output()).toContain(`http://${http}/openapi.json`);
        await server.stop();
      }
      expect(Math.min(...readyMs), `ready after ${readyMs.map(Math.round).join(", ")} ms`).toBeLessThan(
        readyMsMax,
      );
    });
  });

  test("with --json it prints one line of JSON and the ready line", async () => {
    await inTemporaryDirectory(async (directory) => {
      const nbd = `unix:${join(directory, "nbd.sock")}`;
      const server = await VarveProcess.start({
        dataDir: join(directory, "data"),
        nbd: [nbd],
        volumes: ["disk0:1T"],
        args: ["--json"],
      });
      const [report = "", ready] = server.output().trimEnd().split("\n");
      expect(ready).toBe("varve is ready");
      expect(JSON.parse(report)).toMatchObject({
        pid: server.pid,
        http: null,
        volumes: [{ name: "disk0", sizeBytes: 2 ** 40, condition: "serving", failure: null }],
      });
      await server.stop();
    });
  });

  test("warns of an address that others can reach, and only of that", async () => {
    await inTemporaryDirectory(async (directory) => {
      const open = `0.0.0.0:${await freePort()}`;
      const nbd = [open, `127.0.0.1:${await freePort()}`];
      const server = await VarveProcess.start({ dataDir: join(directory, "data"), nbd });
      await pause(100);
      const warnings = server
        .output()
        .split("\n")
        .filter((line) => line.startsWith("warning:"));
      expect(warnings).toEqual([
        `warning: ${open} is reachable from the network, without TLS and without a token`,
      ]);
      await server.stop();
    });
  });
});

test("a server whose output nobody reads any more serves on, and drains", async () => {
  await inTemporaryDirectory(async (directory) => {
    const socket = join(directory, "nbd.sock");
    const up = `bin/varve up --data ${join(directory, "data")} --nbd unix:${socket} --http off --volume disk0:8M`;
    // head ends after two lines and takes the pipe with it; the shell gives the server's own exit code.
    const script = `{ ${up} 2>&1 & echo $! >${directory}/pid; wait $!; echo $? >${directory}/code; } | head -2`;
    const shell = run("bash", ["-c", script]);
    const client = await connected(`unix:${socket}`);
    await client.write(0, Buffer.from("heard by nobody"));
    await client.disconnect();
    process.kill(Number(readFileSync(join(directory, "pid"), "utf8")), "SIGTERM");
    await shell;
    expect(readFileSync(join(directory, "code"), "utf8")).toBe("0\n");
    expect(readFileSync(join(directory, "data", "volumes", "disk0", "disk.raw"), "utf8").slice(0, 15)).toBe(
      "heard by nobody",
    );
  });
});

test("ten idle volumes cost less than 1 % of a CPU", async () => {
  await inTemporaryDirectory(async (directory) => {
    const server = await VarveProcess.start({
      dataDir: join(directory, "data"),
      nbd: [`unix:${join(directory, "nbd.sock")}`],
      http: `127.0.0.1:${await freePort()}`,
      volumes: Array.from({ length: 10 }, (_, index) => `disk${index}:1G`),
    });
    // What a start leaves to do in the background (segments, first checkpoints) is over after some seconds.
    await pause(4000);
    const before = server.usage().cpuMs;
    await pause(idleMs);
    const share = (server.usage().cpuMs - before) / idleMs;
    expect(share, `${(share * 100).toFixed(2)} % of a CPU`).toBeLessThan(idleShareMax);
    await server.stop();
  });
});

describe("stop", () => {
  test.each(["write", "flush"] as const)(
    "SIGTERM under load exits 0 and keeps every acknowledged write (durability %s)",
    async (durability) => {
      await inTemporaryDirectory(async (directory) => {
        const nbd = `unix:${join(directory, "nbd.sock")}`;
        const options = {
          dataDir: join(directory, "data"),
          nbd: [nbd],
          volumes: [`disk0:64M,durability=${durability}`],
        };
        const server = await VarveProcess.start(options);
        const checker = new BlockChecker({ sizeBytes: 64 * MiB, seed: 20_261_121, survives: "acknowledged" });
        const clients = await Promise.all([1, 2].map(async () => NbdClient.connect(nbd, "disk0")));
        const load = checker.run(clients, { depth: 16 });
        await pause(1500);
        await server.stop();
        const result = await load;
        expect(result.findings).toEqual([]);
        expect(result.acknowledged).toBeGreaterThan(100);

        const again = await VarveProcess.start(options);
        const reader = await NbdClient.connect(nbd, "disk0");
        expect(await checker.verify(reader, "restart")).toEqual([]);
        await reader.disconnect();
        await again.stop();
      });
    },
  );

  test("a second signal ends it at once, and the next start has everything", async () => {
    await inTemporaryDirectory(async (directory) => {
      const nbd = `unix:${join(directory, "nbd.sock")}`;
      const options = { dataDir: join(directory, "data"), nbd: [nbd], volumes: ["disk0:64M"] };
      const server = await VarveProcess.start(options);
      const client = await NbdClient.connect(nbd, "disk0");
      await client.write(4096, Buffer.from("acknowledged"));
      process.kill(server.pid, "SIGTERM");
      process.kill(server.pid, "SIGINT");
      const exit = await server.exited;
      // Whichever came first: the drain (0), or the second signal in the middle of it (128 + its number).
      expect([0, 130, 143]).toContain(exit.code);
      client.destroy();
      const again = await VarveProcess.start(options);
      const reader = await NbdClient.connect(nbd, "disk0");
      expect((await reader.read(4096, 12)).toString()).toBe("acknowledged");
      await reader.disconnect();
      await again.stop();
    });
  });
});

test("doctor finds a port that is taken, by whom, and a directory that is served", async () => {
  await inTemporaryDirectory(async (directory) => {
    const dataDir = join(directory, "data");
    const nbd = `127.0.0.1:${await freePort()}`;
    const server = await VarveProcess.start({ dataDir, nbd: [nbd] });
    const own = await varve(["doctor", "--data", dataDir, "--nbd", nbd, "--http", "off"]);
    expect(own.stdout).toContain(`${dataDir}, served by pid ${server.pid}`);
    expect(own.stdout).toContain(`${nbd} is served by Varve, pid ${server.pid}`);
    expect(own.stdout).toContain(`in ${dataDir}/bucket, it may take all that is free there`);
    expect(own.stdout).toContain("log and images lie on the same disk");
    expect(own.code).toBe(0);
    const other = await varve([
      "doctor",
      "--data",
      join(directory, "other"),
      "--nbd",
      nbd,
      "--http",
      "off",
      "--json",
    ]);
    expect(other.code).toBe(1);
    const report = JSON.parse(other.stdout) as {
      ok: boolean;
      findings: { verdict: string; subject: string; found: string }[];
    };
    expect(report.ok).toBe(false);
    const port = report.findings.find((finding) => finding.subject === "nbd address");
    expect(port).toMatchObject({ verdict: "fail" });
    expect(port?.found).toContain(`is in use by another program (`);
    expect(port?.found).toContain(`pid ${server.pid})`);
    await server.stop();
  });
});
