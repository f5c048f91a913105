// Every release reads what each release before it left: the data directories in test/golden/data were written by the versions that they are
// called after, and are served here as they are. How one is made: frozen-data.ts.
import { execFile } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { freePorts } from "../tools/free-port.ts";
import { NbdClient } from "../tools/nbd-client.ts";
import { repositoryDir, VarveProcess } from "../tools/varve-process.ts";
import { frozenContent, frozenFolder, frozenSizeBytes } from "./frozen-data.ts";

const exec = promisify(execFile);
const releases = (await readdir(frozenFolder)).filter((name) => name.endsWith(".tar.zst"));

test("there is data of a release", () => {
  expect(releases).toContain("0.1.0.tar.zst");
});

test.each(releases)("data of %s: the disk, its snapshot, a clone; and it takes writes", async (release) => {
  const work = await mkdtemp(join(tmpdir(), "varve-older-"));
  try {
    await exec("tar", ["-I", "zstd", "-C", work, "-xf", join(frozenFolder, release)]);
    // Unpacked files are other files than those that Varve closed, so it asks: they are what they were.
    for (const volume of ["disk0", "copy"]) {
      await exec(join(repositoryDir, "bin/varve"), ["image", "adopt", volume, "--data", join(work, "data")]);
    }
    const [port] = await freePorts(1);
    const nbd = `127.0.0.1:${port}`;
    const server = await VarveProcess.start({ dataDir: join(work, "data"), nbd: [nbd] });
    const contentOf = async (name: string): Promise<Buffer> => {
      const client = await NbdClient.connect(nbd, name);
      const halves = [
        await client.read(0, frozenSizeBytes / 2),
        await client.read(frozenSizeBytes / 2, frozenSizeBytes / 2),
      ];
      await client.disconnect();
      return Buffer.concat(halves);
    };
    const { past, now } = frozenContent();
    expect((await contentOf("disk0")).equals(now)).toBe(true);
    expect((await contentOf("disk0@then")).equals(past)).toBe(true);
    expect((await contentOf("copy")).equals(past)).toBe(true);
    const client = await NbdClient.connect(nbd, "disk0");
    await client.write(0, Buffer.alloc(4096, 7));
    await client.flush();
    await client.disconnect();
    expect((await contentOf("disk0@then")).equals(past)).toBe(true);
    await server.stop();
    expect((await server.exited).code).toBe(0);
  } finally {
    await rm(work, { recursive: true });
  }
});
