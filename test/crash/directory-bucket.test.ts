// kill -9 of a process that puts into a directory bucket: what was answered is there, what is there is whole, and nothing half
// done is left after the next start. And by the system calls: the order that makes an answered put survive a power cut.
// Needs the right to mount a tmpfs. Programs: strace, mount, umount.
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { SystemRandom } from "#shared/adapters/clock/system.ts";
import { DirectoryObjectStore } from "#shared/adapters/object-store/directory.ts";
import { SeededRandom } from "../tools/seeded-random.ts";
import { isWhole } from "./put-loop.ts";

const program = join(dirname(fileURLToPath(import.meta.url)), "put-loop.ts");

async function inDirectory(work: (directory: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "varve-bucket-crash-"));
  try {
    await work(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Runs the loop for `lifeMs` from its first word on, kills it, and gives the keys that were answered. */
async function killedAfter(command: readonly string[], lifeMs: number): Promise<string[]> {
  const [first = "", ...args] = command;
  const child = spawn(first, args, { stdio: ["ignore", "pipe", "inherit"], detached: true });
  let output = "";
  child.stdout.setEncoding("utf8");
  const ended = new Promise((resolve) => {
    child.once("close", resolve);
  });
  child.stdout.on("data", (text: string) => {
    if (output === "") {
      setTimeout(() => {
        process.kill(-(child.pid ?? 0), "SIGKILL");
      }, lifeMs);
    }
    output += text;
  });
  await ended;
  const lines = output.slice(0, output.lastIndexOf("\n")).split("\n");
  return lines.flatMap((line) => (line.startsWith("stored ") ? [line.slice("stored ".length)] : []));
}

describe("a directory bucket", () => {
  test("kill -9 at any moment loses no answered put and leaves no half object", async () => {
    await inDirectory(async (directory) => {
      const root = join(directory, "bucket");
      const random = new SeededRandom(9);
      let [answered, strays] = [0, 0];
      for (let round = 0; round < 12; round += 1) {
        const keys = await killedAfter(
          [process.execPath, program, root, String(round)],
          random.between(1, 250),
        );
        strays += readdirSync(join(root, "~tmp")).length;
        const store = await DirectoryObjectStore.open(root, { random: new SystemRandom() });
        expect(readdirSync(join(root, "~tmp"))).toEqual([]);
        for (const key of keys) expect(await store.get(key), key).not.toBeNull();
        for await (const { key } of store.list(`objects/${round}/`)) {
          const content = await store.get(key);
          expect(content !== null && isWhole(key, content), key).toBe(true);
        }
        answered += keys.length;
      }
      expect(answered).toBeGreaterThan(100);
      expect(strays).toBeGreaterThan(0);
    });
  });

  test("a full disk is Full, leaves nothing half done, and takes puts again when there is room", async () => {
    await inDirectory(async (directory) => {
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=4M", "none", directory]);
      try {
        const root = join(directory, "bucket");
        const store = await DirectoryObjectStore.open(root, { random: new SystemRandom(), create: true });
        const content = Buffer.alloc(1024 * 1024, 1);
        const stored: string[] = [];
        let failure: unknown = null;
        while (failure === null && stored.length < 10) {
          const key = `fill/${stored.length}`;
          failure = await store.put(key, content, { onlyNew: stored.length % 2 === 0 }).then(
            () => {
              stored.push(key);
              return null;
            },
            (error: unknown) => error,
          );
        }
        expect(failure).toMatchObject({ kind: "Full", hint: expect.stringContaining("Make room") });
        expect(stored.length).toBeGreaterThan(1);
        expect(readdirSync(join(root, "~tmp"))).toEqual([]);
        for (const key of stored) expect((await store.get(key))?.equals(content)).toBe(true);
        await store.remove("fill/0");
        expect(await store.put("fill/again", content)).toBe("stored");
      } finally {
        execFileSync("umount", [directory]);
      }
    });
  });

  test("before a put is answered: content synced, then named, then the name's directory synced", async () => {
    await inDirectory(async (directory) => {
      const root = join(directory, "bucket");
      const trace = join(directory, "trace");
      const calls = "trace=fsync,rename,renameat,renameat2,link,linkat,write";
      const keys = await killedAfter(
        ["strace", "-f", "-y", "-s", "80", "-e", calls, "-o", trace, process.execPath, program, root, "0"],
        1500,
      );
      expect(keys.length).toBeGreaterThan(10);
      const lines = whole(await readFile(trace, "utf8"));
      for (const key of keys) expectOrder(lines, root, key);
    });
  });
});

/** strace splits calls of several threads: each call once, where it began and where it ended. */
function whole(trace: string): { readonly began: number; readonly ended: number; readonly text: string }[] {
  const open = new Map<string, { began: number; text: string }>();
  return trace.split("\n").flatMap((line, number) => {
    const [, pid = "", rest = ""] = /^(\d+)\s+(.*)$/.exec(line) ?? [];
    const cut = rest.indexOf(" <unfinished ...>");
    if (cut >= 0) {
      open.set(pid, { began: number, text: rest.slice(0, cut) });
      return [];
    }
    const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(rest);
    const begin = resumed === null ? undefined : open.get(pid);
    if (begin === undefined) return [{ began: number, ended: number, text: rest }];
    open.delete(pid);
    return [{ began: begin.began, ended: number, text: begin.text + (resumed?.[1] ?? "") }];
  });
}

function expectOrder(calls: ReturnType<typeof whole>, root: string, key: string): void {
  const path = join(root, key);
  const named = calls.find(({ text }) => /^(rename|link)/.test(text) && text.includes(`"${path}"`));
  const temporary = /"([^"]*~tmp\/[0-9a-f]+)"/.exec(named?.text ?? "")?.[1] ?? "none";
  const synced = calls.find(({ text }) => text.startsWith("fsync(") && text.includes(`<${temporary}>`));
  const told = calls.find(({ text }) => text.startsWith("write(") && text.includes(`stored ${key}\\n`));
  // Long outputs are cut short by strace: then the answer is not in its text.
  const toldAt = told?.began ?? Number.POSITIVE_INFINITY;
  const directorySynced = calls.find(
    ({ text, began }) =>
      text.startsWith("fsync(") && text.includes(`<${dirname(path)}>`) && began > (named?.ended ?? 0),
  );
  expect(synced?.text, key).toMatch(/= 0$/);
  expect(named?.text, key).toMatch(/= 0$/);
  expect(synced?.ended ?? Number.NaN, key).toBeLessThan(named?.began ?? Number.NaN);
  expect(directorySynced?.text, key).toMatch(/= 0$/);
  expect(directorySynced?.ended ?? Number.NaN, key).toBeLessThan(toldAt);
}
