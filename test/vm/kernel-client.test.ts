// A real kernel uses a volume as its disk: ext4 through nbd.ko with stress and trim, two connections of one client,
// and qemu's virtio path with WRITE_ZEROES. After a clean stop the image file on the host is that same file system.
import { afterEach, describe, expect, test } from "vitest";
import { Vm } from "../tools/vm.ts";
import {
  checkExt4,
  fact,
  guestDir,
  guestScript,
  promisedSums,
  ServedVolume,
  sumsInExt4,
} from "./served-volume.ts";

const volumes: ServedVolume[] = [];
afterEach(async () => {
  for (const volume of volumes.splice(0)) await volume.remove();
});

async function serve(): Promise<ServedVolume> {
  const volume = await ServedVolume.start("disk0:512M");
  volumes.push(volume);
  return volume;
}

/** Every file that the guest had synced is in the image, byte for byte. */
async function expectPromisedFiles(volume: ServedVolume, lines: readonly string[], count: number) {
  const promised = promisedSums(lines);
  expect(promised.size).toBe(count);
  await checkExt4(volume.imagePath);
  const found = await sumsInExt4(volume.imagePath, "/files");
  for (const [name, sum] of promised) expect(found.get(name), name).toBe(sum);
}

describe("kernel NBD client", () => {
  test("ext4 with files, stress, trim and fsck, and the image file holds it", {
    timeout: 300_000,
  }, async () => {
    const volume = await serve();
    const lines = await Vm.run({
      script: guestScript("kernel-ext4.sh"),
      share: guestDir,
      env: { PORT: volume.port, EXPORT: volume.name, SEED: 1, STRESS_SECONDS: 12 },
      timeoutSeconds: 280,
    });
    expect(fact(lines, "size")).toBe(String(512 * 1024 * 1024));
    expect(fact(lines, "fua")).toBe("1");
    expect(fact(lines, "write_cache")).toBe("write back");
    expect(Number(fact(lines, "discard"))).toBeGreaterThan(0);
    await volume.server.stop();
    await expectPromisedFiles(volume, lines, 40);
    // 64 MiB of ballast and the stress files were deleted and trimmed; files and journal take about 30 MiB.
    expect(await volume.allocatedBytes()).toBeLessThan(60 * 1024 * 1024);
  });

  test("two connections on two CPUs share one disk", { timeout: 200_000 }, async () => {
    const volume = await serve();
    const lines = await Vm.run({
      script: guestScript("multi-connection.sh"),
      share: guestDir,
      env: { PORT: volume.port, EXPORT: volume.name },
      cpus: 2,
      timeoutSeconds: 180,
    });
    expect(fact(lines, "queues")).toBe("2");
    expect(lines.filter((line) => line.startsWith("verified with CPUs"))).toHaveLength(2);
    await volume.server.stop();
  });
});

describe("qemu's NBD client as a virtio disk", () => {
  test("zeroes, discards, mkfs and trim", { timeout: 200_000 }, async () => {
    const volume = await serve();
    const lines = await Vm.run({
      script: guestScript("virtio.sh"),
      share: guestDir,
      env: { SEED: 2 },
      nbdBlockdev: volume.unixUri,
      timeoutSeconds: 180,
    });
    expect(Number(fact(lines, "write_zeroes"))).toBeGreaterThan(0);
    expect(lines.filter((line) => line.startsWith("expected: "))).toHaveLength(8);
    await volume.server.stop();
    await expectPromisedFiles(volume, lines, 20);
    // Only mkfs, its journal and 20 files are left of what was written.
    expect(await volume.allocatedBytes()).toBeLessThan(48 * 1024 * 1024);
  });
});
