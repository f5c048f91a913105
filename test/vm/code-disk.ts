// Packs the checkout, its run-time packages and the pinned Node into a read-only ext4 image, so that Varve runs in a
// virtual machine without a network, just as it is here. Called once per run by power-cut.ts.
import { execFile, spawn } from "node:child_process";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { repositoryDir } from "../tools/varve-process.ts";

const exec = promisify(execFile);
const sources = ["bin", "services", "shared", "package.json"];
/** Type declarations, source maps and effect's own sources are half of the bytes and never run. */
const leftOut = ["*.d.ts", "*.d.mts", "*.map", "node_modules/effect/src"];

/** Where the image holds what Node compiled on the host: the emulated CPU would take 5 s more per start for it. */
export const compileCacheFolder = ".compile-cache";

/** Writes the image to `path`, by way of a folder beside it. Takes about 150 MB and 5 s. */
export async function buildCodeDisk(path: string): Promise<void> {
  const folder = `${path}.d`;
  await mkdir(folder);
  const packages = await runtimePackages();
  const tar = [
    "-c",
    ...leftOut.map((pattern) => `--exclude=${pattern}`),
    "-C",
    repositoryDir,
    ...sources,
    ...packages,
  ];
  await exec("bash", ["-c", 'folder=$1; shift; tar "$@" | tar -x -C "$folder"', "bash", folder, ...tar]);
  await fillCompileCache(folder);
  const { stdout } = await exec("du", ["-sm", folder]);
  const sizeMiB = Math.ceil(Number.parseInt(stdout, 10) * 1.2) + 32;
  await exec("/sbin/mke2fs", [
    "-q",
    "-t",
    "ext4",
    "-O",
    "^has_journal",
    "-m",
    "0",
    "-d",
    folder,
    path,
    `${sizeMiB}M`,
  ]);
  await rm(folder, { recursive: true });
}

/** Starts and stops the packed Varve once. The cache is keyed by paths relative to it, so it holds in the guest too. */
async function fillCompileCache(folder: string): Promise<void> {
  const data = await mkdtemp(join(tmpdir(), "varve-compile-"));
  const args = ["up", "--data", data, "--nbd", `unix:${join(data, "nbd.sock")}`, "--http", "off"];
  const env = {
    ...process.env,
    NODE_COMPILE_CACHE: join(folder, compileCacheFolder),
    NODE_COMPILE_CACHE_PORTABLE: "1",
  };
  const child = spawn(join(folder, "bin", "varve"), [...args, "--volume", "any:1M"], { env });
  const ready = /^varve is ready$/m;
  let shown = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      const wasReady = ready.test(shown);
      shown += text;
      if (ready.test(shown) && !wasReady) child.kill("SIGTERM"); // a second one would mean "at once"
    });
  }
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  await rm(data, { recursive: true, force: true });
  if (code !== 0) throw new Error(`the packed varve ended with ${code}\n${shown}`);
}

/** Folders under node_modules of everything that package.json's `dependencies` bring. */
async function runtimePackages(): Promise<string[]> {
  const args = ["ls", "--omit=dev", "--all", "--parseable"];
  const { stdout } = await exec("npm", args, { cwd: repositoryDir, maxBuffer: 4 * 1024 * 1024 });
  const modules = join(repositoryDir, "node_modules");
  return stdout
    .split("\n")
    .filter((line) => line.startsWith(modules))
    .map((line) => line.slice(repositoryDir.length + 1));
}
