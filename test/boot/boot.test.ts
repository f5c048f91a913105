// A small Linux boots to its login prompt from a volume, and then from the volume's image file without Varve: the whole
// chain (BIOS, boot sector, GRUB, kernel, initrd, root file system) is read from the disk, once over NBD by qemu's own
// client and once as a plain raw file. What the guest wrote the first time is there the second time, and what it wrote
// behind Varve's back comes into the volume by `varve image adopt`.
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, describe, expect, test } from "vitest";
import { repositoryDir, VarveProcessError } from "../tools/varve-process.ts";
import { buildVmClient, vmCacheDir } from "../tools/vm.ts";
import { ServedVolume } from "../vm/served-volume.ts";
import { SerialConsole } from "./serial-console.ts";

const exec = promisify(execFile);
let volume: ServedVolume | undefined;
let machine: SerialConsole | undefined;
afterEach(async () => {
  machine?.kill();
  await machine?.exited;
  await volume?.remove();
});

/** The file system in the disk's only partition, which begins at 1 MiB, is whole. */
async function checkPartition(disk: string): Promise<void> {
  await exec("/sbin/e2fsck", ["-fn", `${disk}?offset=1048576`]);
}

describe("a guest boots", () => {
  test("from the NBD URI, then from the image file", { timeout: 400_000 }, async () => {
    await buildVmClient();
    volume = await ServedVolume.start("disk0:128M");
    const source = join(volume.dir, "boot.raw");
    await exec(join(repositoryDir, "test", "boot", "make-boot-disk.sh"), [source, vmCacheDir]);
    await exec("nbdcopy", ["--flush", source, volume.unixUri]);

    machine = new SerialConsole(`file=${volume.unixUri},format=raw`);
    await machine.expect(/GRUB of the varve test disk/, 60_000);
    await machine.login();
    await machine.run("dd if=/dev/urandom of=/first bs=64k count=32 2>/dev/null && sync");
    const first = await machine.run("sha256sum /first | cut -d' ' -f1");
    expect(first).toMatch(/^[0-9a-f]{64}$/);
    await machine.powerOff();

    await volume.server.stop();
    machine = new SerialConsole(`file=${volume.imagePath},format=raw`);
    await machine.expect(/GRUB of the varve test disk/, 60_000);
    await machine.login();
    expect(await machine.run("sha256sum /first | cut -d' ' -f1")).toBe(first);
    await machine.run("echo written without Varve > /second && sync");
    await machine.powerOff();
    await checkPartition(volume.imagePath);

    // The guest wrote to the file while Varve did not hold it: Varve must be told what that means.
    const refused = await volume.server.restart().catch((cause: unknown) => cause);
    expect(refused).toBeInstanceOf(VarveProcessError);
    expect((refused as VarveProcessError).output).toContain("varve image adopt");
    const varve = join(repositoryDir, "bin", "varve");
    await exec(varve, ["image", "adopt", volume.name, "--data", volume.server.options.dataDir]);
    volume.server = await volume.server.restart();
    const copy = join(volume.dir, "copy.raw");
    await exec("nbdcopy", [volume.unixUri, copy]);
    await checkPartition(copy);
    const second = ["-R", "cat /second", `${copy}?offset=1048576`];
    expect((await exec("/sbin/debugfs", second)).stdout).toBe("written without Varve\n");
    await volume.server.stop();
  });
});
