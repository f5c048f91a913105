// `varve attach` under a mounted ext4 in a real kernel: the gateway is killed and comes back, is killed again and another one on
// another port takes over, the volume grows; no I/O error, every synced file is there. Then a point, detach, SIGTERM.
// The guest's side: guest/attach.sh. Varve runs in the guest from the disk of code-disk.ts.
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, expect, test } from "vitest";
import { freePort } from "../tools/free-port.ts";
import { repositoryDir, VarveProcess } from "../tools/varve-process.ts";
import { Vm } from "../tools/vm.ts";
import { buildCodeDisk } from "./code-disk.ts";
import { checkExt4, fact, guestDir, guestScript, promisedSums, sumsInExt4 } from "./served-volume.ts";

const exec = promisify(execFile);
const MiB = 1024 * 1024;
const files = 40;

let dir = "";
let server: VarveProcess | undefined;
let vm: Vm | undefined;
afterEach(async () => {
  vm?.killNow();
  if (server?.running === true) await server.kill9();
  await rm(dir, { recursive: true, force: true });
});

test("an attached disk lives through restart, move and resize of its gateway", {
  timeout: 300_000,
}, async () => {
  dir = await mkdtemp(join(tmpdir(), "varve-attach-"));
  const [first, second, http] = [await freePort(), await freePort(), await freePort()];
  const common = { dataDir: join(dir, "data"), volumes: ["disk0:256M"], http: `127.0.0.1:${http}` };
  const varve = async (...words: string[]): Promise<void> => {
    await exec(join(repositoryDir, "bin", "varve"), [...words, "--api", `http://127.0.0.1:${http}`]);
  };
  await buildCodeDisk(join(dir, "code.raw"));
  server = await VarveProcess.start({ ...common, nbd: [`127.0.0.1:${first}`] });
  await varve("snapshot", "create", "disk0", "empty");
  vm = await Vm.start({
    script: guestScript("attach.sh"),
    share: guestDir,
    env: { SEED: 5, FILES: files, FIRST: first, SECOND: second, EXPORT: "disk0" },
    // One CPU: see power-cut-rig.ts.
    cpus: 1,
    memoryMiB: 1024,
    timeoutSeconds: 280,
    qemuArgs: [
      "-drive",
      `if=none,id=code,file=${join(dir, "code.raw")},format=raw,readonly=on`,
      "-device",
      "virtio-blk-pci,drive=code",
    ],
  });
  await vm.waitForLine(/^sum \S+ file-008 /, 200_000);
  await server.kill9();
  await new Promise((resolve) => setTimeout(resolve, 1500));
  server = await server.restart();
  await vm.waitForLine(/^sum \S+ file-020 /, 100_000);
  await server.kill9();
  server = await VarveProcess.start({ ...common, nbd: [`127.0.0.1:${second}`] });
  await vm.waitForLine(/ resize$/, 100_000);
  await varve("volume", "resize", "disk0", "--size", "384M");
  await vm.succeeded();
  await server.stop();

  expect(fact(vm.lines, "without-module")).toBe("2");
  expect(vm.lines).toContain("varve: this kernel has no NBD client (module nbd)");
  expect(fact(vm.lines, "link")).toBe("/dev/nbd0");
  expect(fact(vm.lines, "size")).toBe(String(256 * MiB));
  expect(fact(vm.lines, "twice")).toBe("2");
  expect(fact(vm.lines, "in-use")).toBe("75");
  expect(fact(vm.lines, "grown")).toBe(String(384 * MiB));
  expect(fact(vm.lines, "past-read-only")).toBe(`1 ${256 * MiB}`);
  expect(fact(vm.lines, "past-empty")).toBe("yes");
  expect(fact(vm.lines, "gone")).toBe("yes");
  expect(fact(vm.lines, "terminated")).toBe("yes");
  const moved = vm.lines.filter((line) => /^disk0 +\/dev\/nbd0 /.test(line));
  expect(moved[0]).toMatch(new RegExp(`256M +writable +attached +10\\.0\\.2\\.2:${second} +1$`));

  const image = join(dir, "data", "volumes", "disk0", "disk.raw");
  await checkExt4(image);
  const promised = promisedSums(vm.lines);
  expect(promised.size).toBe(files);
  const found = await sumsInExt4(image, "/files");
  for (const [name, sum] of promised) expect(found.get(name), name).toBe(sum);
});
