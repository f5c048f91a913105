// The package as a user meets it: built, installed on a bare Debian, served from, upgraded while its service runs, met by data of a
// newer Varve, removed; and the tarball, unpacked beside. Real dpkg, real clients; only systemctl is a script that writes down its calls.
import { execFile } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { checksumOf } from "#shared/formats/checksum.ts";
import { DebianRoot } from "../tools/debian-root.ts";
import { freePorts } from "../tools/free-port.ts";
import { repositoryDir } from "../tools/varve-process.ts";

const exec = promisify(execFile);
const facts = JSON.parse(await readFile(join(repositoryDir, "package.json"), "utf8")) as {
  version: string;
  devDependencies: Record<string, string>;
};
const newer = `${facts.version}+next`;
let out: string;
let debian: DebianRoot;
let nbd: string;
let http: string;

beforeAll(async () => {
  out = await mkdtemp(join(tmpdir(), "varve-dist-"));
  const build = (...args: string[]): Promise<unknown> =>
    exec(process.execPath, [join(repositoryDir, "scripts/package.ts"), "--out", out, ...args]);
  await build();
  await build("--version", newer, "--only", "deb");
  debian = await DebianRoot.unpack();
  const [nbdPort, httpPort] = await freePorts(2);
  nbd = `127.0.0.1:${nbdPort}`;
  http = `127.0.0.1:${httpPort}`;
});
afterAll(async () => {
  await debian?.remove();
  await rm(out, { recursive: true, force: true });
});

async function install(version: string): Promise<void> {
  const file = (await readdir(out)).find((name) => name.startsWith(`varve_${version}_`)) ?? "";
  await exec("cp", [join(out, file), debian.path("/tmp/varve.deb")]);
  expect(await debian.run("dpkg", "-i", "/tmp/varve.deb")).toMatchObject({ code: 0 });
}

/** Serves as the unit does, does the work, ends by SIGTERM. */
async function served(program: string, work: () => Promise<void>): Promise<void> {
  const up = ["up", "--data", "/var/lib/varve", "--nbd", nbd, "--http", http, "--volume", "disk0:64M"];
  const server = debian.spawn([program, ...up], "varve");
  let said = "";
  const ready = new Promise<void>((resolve, reject) => {
    const keep = (text: Buffer): void => {
      said += text.toString("utf8");
      if (said.includes("varve is ready")) resolve();
    };
    server.stdout?.on("data", keep);
    server.stderr?.on("data", keep);
    server.once("close", (code) => reject(new Error(`it ended with code ${code}\n${said}`)));
  });
  try {
    await ready;
    await work();
  } finally {
    if (server.exitCode === null && server.signalCode === null) {
      const ended = once(server, "close");
      server.kill("SIGTERM");
      await ended;
    }
  }
  expect(server.exitCode, said).toBe(0);
}

const uri = (name: string): string => `nbd://${nbd}/${name}`;

async function copyIn(content: Buffer): Promise<void> {
  await writeFile(join(out, "in.img"), content);
  await exec("nbdcopy", ["--flush", join(out, "in.img"), uri("disk0")]);
}

async function copyOut(name: string): Promise<Buffer> {
  await exec("nbdcopy", [uri(name), join(out, "out.img")]);
  return readFile(join(out, "out.img"));
}

const first = Buffer.alloc(64 * 2 ** 20, "of the first release ");
const second = Buffer.alloc(64 * 2 ** 20, "of the next release ");

test("it installs on a bare Debian: a user, its directories, units, a program that needs nothing else", async () => {
  await install(facts.version);
  expect((await debian.run("varve", "version")).output).toMatch(`varve ${facts.version} (node 24.`);
  const uid = Number((await debian.run("id", "-u", "varve")).output);
  expect(await stat(debian.path("/var/lib/varve"))).toMatchObject({ uid, mode: 0o40750 });
  expect(await stat(debian.path("/etc/varve/credentials"))).toMatchObject({ uid: 0, mode: 0o40700 });
  const modules = await readdir(debian.path("/usr/lib/varve/node_modules"), { recursive: true });
  for (const name of Object.keys(facts.devDependencies)) expect(modules).not.toContain(name);
  expect(modules.filter((name) => /\.(map|d\.[cm]?ts)$/.test(name))).toEqual([]);
});

test("its units are what systemd understands, and leave little open", async () => {
  // A bare Debian has no systemd: verify looks for the targets that every unit depends on.
  const system = "/usr/lib/systemd/system";
  const targets = (await readdir(system)).filter((name) => name.endsWith(".target"));
  await exec("cp", [...targets.map((name) => join(system, name)), debian.path(system)]);
  const units = (await readdir(join(repositoryDir, "infra/systemd"))).filter((name) =>
    name.endsWith(".service"),
  );
  expect(units).toContain("varve.service");
  expect(units).toContain("varve-attach@.service");
  for (const unit of units) {
    const instance = unit.replace("@.", "@lab.");
    const path = debian.path(`/usr/lib/systemd/system/${unit}`);
    const seen = await exec("systemd-analyze", [
      `--root=${debian.directory}`,
      "--man=no",
      "verify",
      instance,
    ]);
    expect(seen.stdout + seen.stderr).toBe("");
    // The kernel takes disks from root alone: that unit can't be closed as far as the others.
    const threshold = unit === "varve-attach@.service" ? 60 : 25;
    const judged = await exec("systemd-analyze", [
      "security",
      "--offline=true",
      `--threshold=${threshold}`,
      path,
    ]);
    expect(judged.stdout).toContain(threshold === 25 ? "OK" : "MEDIUM");
  }
});

test("it serves a disk, and the newer release serves the same disk and its past", async () => {
  await served("/usr/bin/varve", async () => {
    await copyIn(first);
    await exec("chroot", [
      debian.directory,
      "varve",
      "snapshot",
      "create",
      "disk0",
      "then",
      "--api",
      `http://${http}`,
    ]);
  });
  await install(newer);
  expect((await debian.run("varve", "version")).output).toMatch(`varve ${newer} `);
  await served("/usr/bin/varve", async () => {
    expect((await copyOut("disk0")).equals(first)).toBe(true);
    await copyIn(second);
    expect((await copyOut("disk0")).equals(second)).toBe(true);
    expect((await copyOut("disk0@then")).equals(first)).toBe(true);
  });
  const image = await readFile(debian.path("/var/lib/varve/volumes/disk0/disk.raw"));
  expect(image.equals(second)).toBe(true);
});

test("data of a release that is newer still is refused by name, and nothing is changed", async () => {
  const path = debian.path("/var/lib/varve/catalog.json");
  const kept = await readFile(path, "utf8");
  const covered = (kept.split('  "checksum"')[0] ?? "").replace('"version": 1', '"version": 99');
  const sum = checksumOf(Buffer.from(covered)).toString(16).padStart(16, "0");
  const forged = `${covered}  "checksum": "xxh64:${sum}"\n}\n`;
  await writeFile(path, forged);
  const refused = await debian.run("varve", "up", "--data", "/var/lib/varve", "--nbd", nbd, "--http", "off");
  expect(refused).toMatchObject({ code: 2 });
  expect(refused.output).toContain("/var/lib/varve/catalog.json: catalogue version 99 is not known");
  expect(refused.output).toContain("It was written by a newer Varve: use that version. Nothing was changed.");
  expect(await readFile(path, "utf8")).toBe(forged);
  await writeFile(path, kept);
  await served("/usr/bin/varve", async () => {
    expect((await copyOut("disk0")).equals(second)).toBe(true);
  });
});

test("another version stops the units that run before their program is replaced, and starts them again", async () => {
  await mkdir(debian.path("/run/systemd/system"), { recursive: true });
  const script = `#!/bin/sh
echo "$(varve version | cut -d ' ' -f 2): $*" >>/run/calls
[ "$1" != list-units ] || printf '%s loaded active running Varve\\n' varve.service varve@lab.service
`;
  await writeFile(debian.path("/usr/bin/systemctl"), script);
  await chmod(debian.path("/usr/bin/systemctl"), 0o755);
  await writeFile(debian.path("/etc/varve/varve.env"), "VARVE_HTTP=off\n");
  await install(facts.version);
  expect((await readFile(debian.path("/run/calls"), "utf8")).trim().split("\n")).toEqual([
    `${newer}: list-units --type=service --state=active --plain --no-legend varve*.service`,
    `${newer}: stop varve.service varve@lab.service`,
    `${facts.version}: daemon-reload`,
    `${facts.version}: start varve.service varve@lab.service`,
  ]);
  expect(await readFile(debian.path("/etc/varve/varve.env"), "utf8")).toBe("VARVE_HTTP=off\n");
});

test("removing it, even with its settings, leaves the disks and their owner", async () => {
  await rm(debian.path("/run/systemd"), { recursive: true });
  expect(await debian.run("dpkg", "--purge", "varve")).toMatchObject({
    code: 0,
    output: expect.stringContaining("the disks in /var/lib/varve are still there"),
  });
  expect((await readdir(debian.path("/usr/lib"))).includes("varve")).toBe(false);
  expect((await readdir(debian.path("/etc"))).includes("varve")).toBe(false);
  expect((await debian.run("id", "varve")).code).toBe(0);
  const image = await readFile(debian.path("/var/lib/varve/volumes/disk0/disk.raw"));
  expect(image.equals(second)).toBe(true);
});

test("the tarball runs from where it was unpacked, and reads the same data", async () => {
  const name = `varve-${facts.version}-linux-${process.arch}`;
  await exec("tar", ["-C", debian.path("/opt"), "-xzf", join(out, `${name}.tar.gz`)]);
  expect((await readdir(debian.path(`/opt/${name}/systemd`))).includes("varve.service")).toBe(true);
  await served(`/opt/${name}/bin/varve`, async () => {
    expect((await copyOut("disk0")).equals(second)).toBe(true);
  });
});
