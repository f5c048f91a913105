// An image that somebody changed while Varve did not hold it, with the programs that do such things: qemu-io writes into it,
// truncate resizes it, `varve up` refuses it, adopt keeps the change, discard throws it away; adopt is killed on the way.
// Programs: qemu-io, qemu-img, nbdcopy, nbdinfo, cp, truncate.
import { type ChildProcess, spawn } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { inTemporaryDirectory, run, varve, varveJson } from "../tools/varve-command.ts";
import { repositoryDir, VarveProcess } from "../tools/varve-process.ts";

const MiB = 1024 * 1024;

interface Report {
  readonly clean: boolean;
  readonly findings: readonly string[];
  readonly fields: Readonly<Record<string, string | number | boolean>>;
}

async function must(program: string, ...args: string[]): Promise<string> {
  const result = await run(program, args);
  expect(result.code, `${program} ${args.join(" ")}\n${result.stdout}${result.stderr}`).toBe(0);
  return result.stdout;
}

const pause = async (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const sameImage = async (one: string, other: string): Promise<string> =>
  must("qemu-img", "compare", "-s", "-f", "raw", "-F", "raw", one, other);

const imageOf = (dataDir: string): string => join(dataDir, "volumes", "disk0", "disk.raw");

const serve = async (directory: string, dataDir: string, volumes = ["disk0:64M"]): Promise<VarveProcess> =>
  VarveProcess.start({ dataDir, nbd: [`unix:${join(directory, "nbd.sock")}`], volumes });

/** A stopped volume of 64 MiB with some content; gives its data directory. */
async function makeVolume(directory: string): Promise<string> {
  const dataDir = join(directory, "data");
  const server = await serve(directory, dataDir);
  const writes = [
    "write -P 1 0 3M",
    "write -P 2 20M 700k",
    "write -P 3 33333 4444",
    "discard 1M 1M",
    "flush",
  ];
  await must("qemu-io", "-f", "raw", ...writes.flatMap((write) => ["-c", write]), server.uri("disk0"));
  await server.stop();
  return dataDir;
}

/** The volume as NBD clients get it, and as its file is after the stop. */
async function expectServed(directory: string, dataDir: string, expected: string): Promise<void> {
  const server = await serve(directory, dataDir, []);
  const copy = join(directory, "copy.raw");
  await must("nbdcopy", server.uri("disk0"), copy);
  await sameImage(copy, expected);
  await server.stop();
  await sameImage(imageOf(dataDir), expected);
}

const changes = ["write -P 7 512k 1M", "write -P 8 1000001 77", "discard 20M 64k", "write -z 40M 1M"];

describe("a change behind Varve's back", { timeout: 120_000 }, () => {
  test("is refused, and then kept or thrown away", async () => {
    await inTemporaryDirectory(async (directory) => {
      const dataDir = await makeVolume(directory);
      const [before, changed] = [join(directory, "before.raw"), join(directory, "changed.raw")];
      await must("cp", "--sparse=always", imageOf(dataDir), before);
      expect((await varveJson<Report>(["image", "check", "disk0", "--data", dataDir])).clean).toBe(true);

      await must("qemu-io", "-f", "raw", ...changes.flatMap((one) => ["-c", one]), imageOf(dataDir));
      await must("cp", "--sparse=always", imageOf(dataDir), changed);
      const refused = await varve([
        "up",
        "--data",
        dataDir,
        "--nbd",
        `unix:${directory}/s`,
        "--volume",
        "disk0:64M",
      ]);
      expect(refused.code).toBe(2);
      expect(refused.stderr).toContain("was changed while Varve did not hold it: it was written to");
      expect(refused.stderr).toContain("varve image adopt");
      expect(refused.stderr).toContain("varve image discard");
      const check = await varve(["image", "check", "disk0", "--data", dataDir]);
      expect(check.code).toBe(1);
      expect(check.stdout).toContain("time of last write");

      const other = join(directory, "other");
      await must("cp", "-a", dataDir, other);
      await varveJson(["image", "discard", "disk0", "--data", other]);
      expect((await varveJson<Report>(["image", "check", "disk0", "--data", other])).findings).toEqual([]);
      await expectServed(directory, other, before);

      const adopted = await varveJson<Report>(["image", "adopt", "disk0", "--data", dataDir]);
      expect(adopted.findings.join()).toContain("adopted");
      await expectServed(directory, dataDir, changed);
      // What was adopted is in the log: the image can be built from it again.
      await varveJson(["image", "discard", "disk0", "--data", dataDir]);
      await expectServed(directory, dataDir, changed);
    });
  });

  test("another size of the file becomes the volume's size", async () => {
    await inTemporaryDirectory(async (directory) => {
      const dataDir = await makeVolume(directory);
      await must("truncate", "-s", "80M", imageOf(dataDir));
      await must("qemu-io", "-f", "raw", "-c", "write -P 9 79M 1M", imageOf(dataDir));
      await varveJson(["image", "adopt", "disk0", "--data", dataDir]);
      const server = await serve(directory, dataDir, []);
      expect((await must("nbdinfo", "--size", server.uri("disk0"))).trim()).toBe(String(80 * MiB));
      await must(
        "qemu-io",
        "-f",
        "raw",
        "-r",
        "-c",
        "read -P 9 79M 1M",
        "-c",
        "read -P 2 20M 700k",
        server.uri("disk0"),
      );
      await server.stop();
    });
  });

  test("is not adopted or discarded while qemu holds the image", async () => {
    await inTemporaryDirectory(async (directory) => {
      const dataDir = await makeVolume(directory);
      await must("qemu-io", "-f", "raw", "-c", "write -P 4 0 64k", imageOf(dataDir));
      const holder = await holdImage(imageOf(dataDir));
      try {
        for (const action of ["adopt", "discard"]) {
          const result = await varve(["image", action, "disk0", "--data", dataDir]);
          expect(result.code, result.stderr).toBe(75);
          expect(result.stderr).toContain("disk.raw");
        }
      } finally {
        await ended(holder);
      }
      await varveJson(["image", "adopt", "disk0", "--data", dataDir]);
    });
  });

  test("an adopt that is killed is begun again, and nothing else takes the image", async () => {
    await inTemporaryDirectory(async (directory) => {
      const dataDir = await makeVolume(directory);
      const noise = join(directory, "noise");
      writeFileSync(noise, randomFillSync(Buffer.alloc(48 * MiB)));
      await must("cp", "--no-preserve=all", noise, imageOf(dataDir));
      await must("truncate", "-s", "64M", imageOf(dataDir));
      const changed = join(directory, "changed.raw");
      await must("cp", "--sparse=always", imageOf(dataDir), changed);
      let begun = 0;
      for (let round = 0; round < 4; round += 1) {
        await killedAdopt(dataDir, 15 * round);
        await sameImage(imageOf(dataDir), changed);
        const report = JSON.parse(
          (await varve(["image", "check", "disk0", "--data", dataDir, "--json"])).stdout,
        ) as Report;
        if (report.clean) break;
        expect(report.findings.join()).toContain("an adopt was begun");
        begun += 1;
        const discard = await varve(["image", "discard", "disk0", "--data", dataDir]);
        expect(discard.code).toBe(2);
        expect(discard.stderr).toContain("varve image adopt disk0");
        const up = await varve([
          "up",
          "--data",
          dataDir,
          "--nbd",
          `unix:${directory}/s`,
          "--volume",
          "disk0:64M",
        ]);
        expect(up.code).toBe(2);
      }
      expect(begun).toBeGreaterThan(0);
      await varveJson(["image", "adopt", "disk0", "--data", dataDir]);
      await expectServed(directory, dataDir, changed);
    });
  });
});

/** qemu-io with the image open for writing. */
async function holdImage(image: string): Promise<ChildProcess> {
  const holder = spawn("qemu-io", ["-f", "raw", image], { stdio: ["pipe", "pipe", "inherit"] });
  holder.stdin.write("length\n");
  await new Promise<void>((resolve) => holder.stdout.once("data", () => resolve()));
  return holder;
}

async function ended(child: ChildProcess): Promise<void> {
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill();
  await gone;
}

/** Killed so long after it wrote down that it has begun. */
async function killedAdopt(dataDir: string, afterMs: number): Promise<void> {
  const checkpoint = `${imageOf(dataDir)}.checkpoint`;
  const { ino } = statSync(checkpoint);
  const child = spawn(join(repositoryDir, "bin", "varve"), ["image", "adopt", "disk0", "--data", dataDir], {
    stdio: "ignore",
  });
  const gone = new Promise((resolve) => child.once("exit", resolve));
  while (child.exitCode === null && statSync(checkpoint).ino === ino) await pause(1);
  await pause(afterMs);
  child.kill("SIGKILL");
  await gone;
}
