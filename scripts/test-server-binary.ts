// Finds the servers and one tool that tests run against: in PATH where the version fits, else built once by Go, pinned, into
// .cache/test-servers (git-ignored). scripts/test.ts runs it before the stages that need a server; test/tools/s3-servers.ts
// and test/tools/nats-server.ts ask it for the path. `node scripts/test-server-binary.ts nats-server` builds ahead. A missing
// Go says what to do.
import { execFile } from "node:child_process";
import { access, mkdir } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { root } from "./step.ts";

const run = promisify(execFile);

interface ServerSource {
  /** What `go install` takes; with `inside`, the module. */
  readonly package: string;
  readonly version: string;
  /** The package's folder, built inside its module: for one whose go.mod replaces modules, which `go install` refuses. */
  readonly inside?: string;
  /** Asks a binary in PATH for its version, and what it says if it fits as well. */
  readonly asks?: string;
  readonly fits: RegExp;
}

export const serverSources = {
  // It calls itself 4.53; the project's tags are no Go versions.
  weed: {
    package: "github.com/seaweedfs/seaweedfs",
    version: "v0.0.0-20261109003541-7506e5f91cd6",
    inside: "./weed",
    asks: "version",
    fits: /\b4\.(?:5[3-9]|[6-9]\d)\b/,
  },
  "nats-server": {
    package: "github.com/nats-io/nats-server/v2",
    version: "v2.15.1",
    fits: /\bv2\.15\.\d+/,
  },
  versitygw: {
    package: "github.com/versity/versitygw/cmd/versitygw",
    version: "v1.8.0",
    fits: /\bv?1\.(?:[89]|[1-9]\d)\.\d+/,
  },
  minio: {
    package: "github.com/minio/minio",
    version: "v0.0.0-20260212201848-7aac2a2c5b7c",
    fits: /RELEASE\.202[56]-/,
  },
  // No server: reads a compose file as `docker compose config` does, for it is the library of that.
  "compose-spec": {
    package: "github.com/compose-spec/compose-go/v2",
    version: "v2.16.2",
    inside: "./cmd",
    fits: /(?!)/,
  },
} as const satisfies Record<string, ServerSource>;

export type BuiltServer = keyof typeof serverSources;

const buildTimeoutMs = 20 * 60_000;

/** The program's path. Rejects with what to do where it is neither there nor can be built. */
export async function serverBinary(name: BuiltServer): Promise<string> {
  const source: ServerSource = serverSources[name];
  const inPath = await findInPath(name, source);
  if (inPath !== null) return inPath;
  const directory = join(root, ".cache", "test-servers", `${name}-${source.version}`);
  const path = join(directory, name);
  if (await isThere(path)) return path;
  await build(name, source, directory);
  return path;
}

async function build(name: string, source: ServerSource, directory: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  const what = `${source.package}@${source.version}`;
  console.log(`building ${what} (some minutes, once)`);
  try {
    await (source.inside === undefined
      ? go(["install", what], directory)
      : buildInside(what, source.inside, join(directory, name)));
  } catch (error) {
    const { code, stderr } = error as { code?: unknown; stderr?: string };
    const why = code === "ENOENT" ? "Go is not installed" : (stderr ?? String(error)).trim().slice(-2000);
    const message =
      `${name} can't be built: ${why}\n` +
      `The tests need it: put ${name} ${source.version} in PATH, or install Go 1.26 or newer ` +
      "from https://go.dev/dl (Debian 12's golang is too old) and run this again.";
    throw new Error(message, { cause: error });
  }
}

/** Where the module's own go.mod and go.sum rule. Without debug data: nobody debugs it, and the linker is twice as fast. */
async function buildInside(what: string, folder: string, path: string): Promise<void> {
  const { Dir: module } = JSON.parse(await go(["mod", "download", "-json", what])) as { Dir: string };
  await go(["build", "-C", module, "-trimpath", "-ldflags=-s -w", "-o", path, folder]);
}

async function go(args: readonly string[], binaries?: string): Promise<string> {
  const env = { ...process.env, CGO_ENABLED: "0", ...(binaries === undefined ? {} : { GOBIN: binaries }) };
  const options = { env, timeout: buildTimeoutMs, maxBuffer: 16 * 1024 * 1024 };
  return (await run("go", args, options)).stdout;
}

async function findInPath(name: string, { asks = "--version", fits }: ServerSource): Promise<string | null> {
  for (const directory of (process.env["PATH"] ?? "").split(delimiter)) {
    const path = join(directory, name);
    if (directory === "" || !(await isThere(path))) continue;
    const said = await run(path, [asks], { timeout: 10_000 }).catch(() => null);
    if (said !== null && fits.test(said.stdout)) return path;
  }
  return null;
}

function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

if (import.meta.main) {
  const known = Object.keys(serverSources) as BuiltServer[];
  const asked = process.argv.slice(2);
  const wrong = asked.filter((name) => !known.includes(name as BuiltServer));
  if (wrong.length > 0) {
    console.error(`no such server: ${wrong.join(", ")}; servers: ${known.join(", ")}`);
    process.exit(2);
  }
  for (const name of asked.length === 0 ? known : (asked as BuiltServer[])) {
    try {
      console.log(`${name}: ${await serverBinary(name)}`);
    } catch (error) {
      console.error(error instanceof Error ? error.message : String(error));
      process.exitCode = 1;
    }
  }
}
