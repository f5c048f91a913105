// Acceptance 2 of the first issue, as written there: `varve up` serves a volume, a real ext4 image goes in with nbdcopy and
// comes out byte for byte, and after a stop the volume's image file is that disk for qemu-img compare.
// Programs: mke2fs, nbdinfo, nbdcopy, e2fsck, qemu-img.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { freePort } from "../tools/free-port.ts";
import { inTemporaryDirectory, run } from "../tools/varve-command.ts";
import { VarveProcess } from "../tools/varve-process.ts";

const MiB = 1024 * 1024;

/** Runs a program that has to succeed; gives its output. */
async function must(program: string, ...args: string[]): Promise<string> {
  const result = await run(program, args);
  expect(result.code, `${program} ${args.join(" ")}\n${result.stdout}${result.stderr}`).toBe(0);
  return result.stdout;
}

test("an ext4 image goes in and comes out byte for byte, and the file on disk is the disk", async () => {
  await inTemporaryDirectory(async (directory) => {
    const dataDir = join(directory, "D");
    const [nbd, http] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
    const server = await VarveProcess.start({ dataDir, nbd: [nbd], http, volumes: ["disk0:1G"] });
    const uri = `nbd://${nbd}/disk0`;
    expect(server.output()).toContain(uri);

    const source = join(directory, "source.img");
    await must("mke2fs", "-q", "-t", "ext4", "-d", "docs", source, "1G");
    await must("nbdcopy", source, uri);
    const facts = JSON.parse(await must("nbdinfo", "--json", uri)) as {
      exports: { "export-size": number; can_multi_conn: boolean; can_flush: boolean }[];
    };
    expect(facts.exports[0]).toMatchObject({
      "export-size": 1024 * MiB,
      can_multi_conn: true,
      can_flush: true,
    });

    const back = join(directory, "back.img");
    await must("nbdcopy", uri, back);
    await must("cmp", source, back);
    await must("e2fsck", "-fn", back);
    await must("qemu-img", "compare", "-f", "raw", "-F", "raw", source, uri);

    await server.stop();
    const image = join(dataDir, "volumes", "disk0", "disk.raw");
    expect(existsSync(image)).toBe(true);
    await must("qemu-img", "compare", "-f", "raw", "-F", "raw", source, image);
    await must("e2fsck", "-fn", image);
  });
});
