// A small Linux boots to its login prompt from a volume, and then from the volume's image file without Varve: the whole
// chain (BIOS, boot sector, GRUB, kernel, initrd, root file system) is read from the disk, once over NBD by qemu's own
// client and once as a plain raw file. What the guest wrote the first time is there the second time.
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, describe, expect, test } from "vitest";
import { repositoryDir } from "../tools/varve-process.ts";
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
    await machine.powerOff();
    // Read-only on the host: the partition begins at 1 MiB.
    await exec("/sbin/e2fsck", ["-fn", `${volume.imagePath}?offset=1048576`]);
  });
});
