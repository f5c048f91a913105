// `npm run package`: dist/varve-VERSION-linux-ARCH.tar.gz and dist/varve_VERSION_ARCH.deb, each with everything that Varve needs to run:
// Node, sources, native modules, systemd units. Two runs on the same sources make the same bytes. `--out DIR`, `--version V` and
// `--only deb` are for the test that installs and upgrades it (test/package). What is inside: package-tree.ts; why: ADR 012.
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { layProgram } from "./package-tree.ts";
import { root } from "./step.ts";

const { values } = parseArgs({
  options: { out: { type: "string" }, version: { type: "string" }, only: { type: "string" } },
});
const out = values.out ?? join(root, "dist");
const own = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
  version: string;
  description: string;
};
const version = values.version ?? own.version;
const infra = join(root, "infra");
const epoch = process.env["SOURCE_DATE_EPOCH"] ?? lastCommit();

/** Of the sources, so that packages differ only where these do. */
function lastCommit(): string {
  try {
    return execFileSync("git", ["log", "-1", "--format=%ct"], { cwd: root, encoding: "utf8" }).trim();
  } catch {
    return "0";
  }
}

function run(program: string, args: readonly string[]): void {
  execFileSync(program, args, {
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...process.env, SOURCE_DATE_EPOCH: epoch },
  });
}

function makeTarball(work: string): string {
  const name = `varve-${version}-linux-${process.arch}`;
  const path = join(out, `${name}.tar.gz`);
  layProgram(join(work, name), version);
  cpSync(join(infra, "systemd"), join(work, name, "systemd"), { recursive: true });
  const same = [
    "--sort=name",
    `--mtime=@${epoch}`,
    "--owner=0",
    "--group=0",
    "--numeric-owner",
    "--mode=go=rX,u+rw",
  ];
  run("tar", ["-c", "-I", "gzip -n", "-f", path, ...same, "-C", work, name]);
  return path;
}

function makeDeb(work: string): string {
  const architecture = process.arch === "x64" ? "amd64" : process.arch;
  const tree = join(work, "deb");
  const at = (...parts: string[]): string => join(tree, ...parts);
  layProgram(at("usr/lib/varve"), version);
  for (const folder of [
    "usr/bin",
    "usr/lib/systemd/system",
    "usr/lib/udev/rules.d",
    "etc/varve",
    "usr/share/doc/varve/examples",
    "DEBIAN",
  ]) {
    mkdirSync(at(folder), { recursive: true });
  }
  symlinkSync("../lib/varve/bin/varve", at("usr/bin/varve"));
  for (const unit of readdirSync(join(infra, "systemd")).filter((file) => file.endsWith(".service"))) {
    cpSync(join(infra, "systemd", unit), at("usr/lib/systemd/system", unit));
  }
  cpSync(join(infra, "udev/60-varve.rules"), at("usr/lib/udev/rules.d/60-varve.rules"));
  cpSync(join(infra, "systemd/varve.env"), at("etc/varve/varve.env"));
  cpSync(join(infra, "systemd/s3-credentials.conf"), at("usr/share/doc/varve/examples/s3-credentials.conf"));
  cpSync(join(root, "LICENSE"), at("usr/share/doc/varve/copyright"));
  cpSync(join(root, "README.md"), at("usr/share/doc/varve/README.md"));
  for (const script of readdirSync(join(infra, "debian"))) {
    cpSync(join(infra, "debian", script), at("DEBIAN", script));
    chmodSync(at("DEBIAN", script), 0o755);
  }
  writeFileSync(at("DEBIAN/conffiles"), "/etc/varve/varve.env\n");
  writeFileSync(at("DEBIAN/control"), control(architecture, tree));
  const path = join(out, `varve_${version}_${architecture}.deb`);
  run("find", [tree, "-exec", "touch", "--no-dereference", `--date=@${epoch}`, "{}", "+"]);
  run("chmod", ["-R", "go=rX,u+rw", tree]);
  run("dpkg-deb", ["--root-owner-group", "-Zzstd", "--build", tree, path]);
  return path;
}

function control(architecture: string, tree: string): string {
  const kib =
    execFileSync("du", ["-sk", "--apparent-size", tree], { encoding: "utf8" }).split("\t", 1)[0] ?? "0";
  return [
    "Package: varve",
    `Version: ${version}`,
    `Architecture: ${architecture}`,
    "Maintainer: The Varve maintainers <maintainers@varve.invalid>",
    `Installed-Size: ${kib}`,
    "Depends: libc6 (>= 2.28), libstdc++6, passwd",
    "Suggests: libnbd-bin, qemu-utils, nbd-client",
    "Section: admin",
    "Priority: optional",
    `Description: ${own.description.replace(/^A /, "")}`,
    " Disks over NBD, event-sourced: every write is an entry in a durable log, the disk",
    " is a raw image file, and every moment of the past opens again as a disk.",
    "",
  ].join("\n");
}

mkdirSync(out, { recursive: true });
const work = mkdtempSync(join(tmpdir(), "varve-package-"));
try {
  const made = [
    ...(values.only === "deb" ? [] : [makeTarball(work)]),
    ...(values.only === "tar" ? [] : [makeDeb(work)]),
  ];
  for (const path of made) console.log(path);
} finally {
  rmSync(work, { recursive: true, force: true });
}
