// The server is killed with -9 and comes back under a mounted file system that is being written: no I/O error, every
// synced file is there. Once with the kernel's client (attached over netlink, as nbd-persist.py does) and once with qemu's.
import { afterEach, describe, expect, test } from "vitest";
import { Vm, type VmOptions } from "../tools/vm.ts";
import { checkExt4, guestDir, guestScript, promisedSums, ServedVolume, sumsInExt4 } from "./served-volume.ts";

const files = 60;
/** The server dies when the guest reports these files, and is away for so long. */
const kills = [
  { atFile: 8, pauseMs: 200 },
  { atFile: 20, pauseMs: 2500 },
  { atFile: 35, pauseMs: 1000 },
  { atFile: 36, pauseMs: 0 },
];

let volume: ServedVolume | undefined;
afterEach(async () => {
  await volume?.remove();
});

async function surviveKills(served: ServedVolume, options: Partial<VmOptions>): Promise<void> {
  const vm = await Vm.start({
    script: guestScript("restart.sh"),
    share: guestDir,
    timeoutSeconds: 180,
    ...options,
  });
  for (const { atFile, pauseMs } of kills) {
    await vm.waitForLine(new RegExp(`^sum \\S+ file-${String(atFile).padStart(3, "0")} `), 120_000);
    await served.killAndRestart(pauseMs);
  }
  await vm.succeeded();
  await served.server.stop();
  await checkExt4(served.imagePath);
  const promised = promisedSums(vm.lines);
  expect(promised.size).toBe(files);
  const found = await sumsInExt4(served.imagePath, "/files");
  for (const [name, sum] of promised) expect(found.get(name), name).toBe(sum);
}

describe("kill -9 of the server under a mounted file system", () => {
  test("kernel client over netlink", { timeout: 200_000 }, async () => {
    volume = await ServedVolume.start("disk0:256M");
    await surviveKills(volume, {
      env: { SEED: 3, FILES: files, PORT: volume.port, EXPORT: volume.name },
    });
  });

  test("qemu's client with reconnect-delay", { timeout: 200_000 }, async () => {
    volume = await ServedVolume.start("disk0:256M");
    await surviveKills(volume, {
      env: { SEED: 4, FILES: files },
      nbdBlockdev: `${volume.unixUri},file.reconnect-delay=60`,
    });
  });
});
