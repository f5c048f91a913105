// Runs one `varve …` command to its end, as a user does, and other programs of a test beside it. For end-to-end tests; a
// server is started with varve-process.ts. Also a fresh directory per test, removed with everything in it.
// Every command has a time limit, so that one that hangs fails its test instead of the run.
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { repositoryDir } from "./varve-process.ts";

export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const commandMs = 60_000;

/** Runs any program; never rejects for its exit code. */
export async function run(
  program: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  timeoutMs = commandMs,
): Promise<CommandResult> {
  return await new Promise((resolve, reject) => {
    execFile(
      program,
      [...args],
      {
        cwd: repositoryDir,
        env: { ...process.env, ...env },
        timeout: timeoutMs,
        maxBuffer: 64 * 1024 * 1024,
      },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : error.code;
        if (typeof code === "number") resolve({ code, stdout, stderr });
        else reject(error ?? new Error(`${program} gave no exit code`));
      },
    );
  });
}

/** `varve WORDS`, from the checkout. */
export async function varve(
  words: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<CommandResult> {
  return await run(join(repositoryDir, "bin", "varve"), words, env);
}

/** The same with `--json`, parsed. Throws with the command's own words where it fails. */
export async function varveJson<T = unknown>(words: readonly string[]): Promise<T> {
  const result = await varve([...words, "--json"]);
  if (result.code !== 0) throw new Error(`varve ${words.join(" ")}: exit ${result.code}\n${result.stderr}`);
  return JSON.parse(result.stdout) as T;
}

/** A directory that is gone, with all in it, when `work` has ended. */
export async function inTemporaryDirectory<T>(work: (directory: string) => Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), "varve-e2e-"));
  try {
    return await work(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** A hash of names, sizes and contents of everything in a directory; equal before and after means that nothing changed. */
export function contentOf(directory: string): string {
  const hash = createHash("sha256");
  const walk = (path: string): void => {
    for (const name of readdirSync(path).sort()) {
      const inner = join(path, name);
      const facts = statSync(inner);
      hash.update(`${inner}\0${facts.isDirectory() ? "directory" : facts.size}\0`);
      if (facts.isDirectory()) walk(inner);
      // A thin image of a large volume is zeroes for the most part; its size and head tell enough.
      else if (facts.isFile()) hash.update(readFileSync(inner).subarray(0, 64 * 1024 * 1024));
    }
  };
  walk(directory);
  return hash.digest("hex");
}
