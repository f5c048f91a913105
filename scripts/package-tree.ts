// What a package of Varve holds: the sources as they are, the pinned Node, and those parts of node_modules that run. package.ts lays
// this tree down and makes a tarball and a .deb of it; the image (infra/docker/Dockerfile) holds the same without Node.
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join, relative, sep } from "node:path";
import { root } from "./step.ts";

/** What nothing loads at run time. The licenses stay. */
const dead = /\.(?:map|d\.[cm]?ts|tsbuildinfo)$|^(?:CHANGELOG|README|AGENTS|CLAUDE|HISTORY)\.md$|^\.github$/i;
/** Folders of packages that hold their sources beside what is built from them, or only put Node in place. */
const deadFolders = [
  "effect/src",
  "effect/ai-docs",
  "@effect/platform-node/src",
  "@effect/platform-node-shared/src",
];
const installers = /^node(?:-bin-setup|\/node_modules\/.+)$/;

/** Writes the program into `directory`, which must not exist. */
export function layProgram(directory: string, version: string): void {
  mkdirSync(directory, { recursive: true });
  for (const part of ["bin", "shared", "services", "LICENSE", "README.md"]) {
    cpSync(join(root, part), join(directory, part), { recursive: true });
  }
  const facts = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as Record<string, unknown>;
  const kept = Object.fromEntries(
    ["name", "description", "license", "type", "imports"].map((key) => [key, facts[key]]),
  );
  writeFileSync(join(directory, "package.json"), `${JSON.stringify({ version, ...kept }, null, 2)}\n`);
  const node = join(root, "node_modules/node/node_modules", `node-linux-${process.arch}`);
  cpSync(join(node, "LICENSE"), join(directory, "node_modules/node/LICENSE"));
  for (const name of runtimePackages()) layPackage(name, join(directory, "node_modules"));
}

function layPackage(name: string, modules: string): void {
  const source = join(root, "node_modules", name);
  cpSync(source, join(modules, name), {
    recursive: true,
    filter: (path) => {
      const inside = `${name}/${relative(source, path).split(sep).join("/")}`;
      if (path !== source && basename(path) === "node_modules") return false;
      if (deadFolders.some((folder) => inside === folder)) return false;
      return !dead.test(basename(path));
    },
  });
}

/** Names below node_modules, nested ones included, without what only development needs. */
function runtimePackages(): readonly string[] {
  const listed = execFileSync("npm", ["ls", "--omit=dev", "--all", "--parseable"], {
    cwd: root,
    encoding: "utf8",
  });
  const modules = join(root, "node_modules") + sep;
  return listed
    .split("\n")
    .filter((path) => path.startsWith(modules))
    .map((path) => path.slice(modules.length))
    .filter((name) => !installers.test(name) && !name.startsWith("@types/"));
}
