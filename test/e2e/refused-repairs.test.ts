// Each row of docs/errors.md that `varve image adopt` and `varve image discard` can refuse with: exit code, message and hint, and
// the image is byte for byte what it was. What they do when they may: image-repair.test.ts.
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { ApiVolume } from "#shared/api/http-api.ts";
import {
  adoptingFile,
  decodeCheckpoint,
  encodeCheckpoint,
  isBadCheckpoint,
} from "#shared/formats/checkpoint.ts";
import { freePort } from "../tools/free-port.ts";
import { NbdClient } from "../tools/nbd-client.ts";
import { type CommandResult, run, varve } from "../tools/varve-command.ts";
import { repositoryDir, VarveProcess } from "../tools/varve-process.ts";

const MiB = 1024 * 1024;
const directory = mkdtempSync(join(tmpdir(), "varve-repairs-"));
const data = join(directory, "data");
const nbd = `unix:${join(directory, "nbd.sock")}`;
const image = join(data, "volumes", "kept", "disk.raw");
const checkpoint = `${image}.checkpoint`;

interface Refusal {
  readonly id: string;
  readonly action: "adopt" | "discard";
  /** Makes the state; the way back is returned. */
  readonly given: () => (() => void) | Promise<() => void>;
  readonly code: number;
  readonly says: string;
  readonly hint: string;
}

function aside(path: string): () => void {
  renameSync(path, `${path}.aside`);
  return () => renameSync(`${path}.aside`, path);
}

async function killed(): Promise<() => void> {
  const server = await VarveProcess.start({ dataDir: data, nbd: [nbd] });
  await server.kill9();
  return () => undefined;
}

/** What an adopt that was stopped leaves. */
function adoptBegun(): () => void {
  const bytes = readFileSync(checkpoint);
  const known = decodeCheckpoint(bytes);
  if (isBadCheckpoint(known)) throw new Error(known.detail);
  writeFileSync(checkpoint, encodeCheckpoint({ ...known, detached: adoptingFile }));
  return () => writeFileSync(checkpoint, bytes);
}

const refusals: readonly Refusal[] = [
  {
    id: "repair-adopt-size",
    action: "adopt",
    given: () => {
      truncateSync(image, 64 * MiB + 100);
      return () => truncateSync(image, 64 * MiB);
    },
    code: 2,
    says: "the size of DATA/volumes/kept/disk.raw, 67108964, is not a multiple of 512 bytes",
    hint: "Give the file a size that a volume may have: truncate -s SIZE FILE, a multiple of 512 bytes.",
  },
  {
    id: "repair-adopt-image-missing",
    action: "adopt",
    given: () => aside(image),
    code: 2,
    says: "the image DATA/volumes/kept/disk.raw does not exist",
    hint: "Put it back, or build it again from the log: varve image discard kept.",
  },
  {
    id: "repair-adopt-checkpoint-missing",
    action: "adopt",
    given: () => aside(checkpoint),
    code: 65,
    says: "DATA/volumes/kept/disk.raw.checkpoint does not exist: nobody can tell which acknowledged writes the image lacks",
    hint:
      "Put the checkpoint back, or build the image from the log: varve image discard kept. Where the log no longer reaches back, " +
      "copy the image into a new volume with nbdcopy and look at what it holds.",
  },
  {
    id: "repair-discard-adopt-begun",
    action: "discard",
    given: adoptBegun,
    code: 2,
    says: "an adopt of volume kept was begun and did not end: its log holds a part of the new content",
    hint: "Only the image is whole. Run varve image adopt kept again: it begins from the start.",
  },
  {
    id: "repair-discard-log-short",
    action: "discard",
    given: () => () => undefined,
    code: 2,
    says: "the log of volume kept no longer reaches back to its first entry, so the image can't be built from it",
    hint:
      "Keep the image as it is with varve image adopt kept, or put a backup of disk.raw in its place and adopt that. " +
      "Nothing was changed.",
  },
  {
    id: "repair-adopt-unclean",
    action: "adopt",
    given: async () => {
      // The rows before changed the file's times; then Varve takes it and dies.
      expect((await repair("adopt")).code).toBe(0);
      return await killed();
    },
    code: 2,
    says: "DATA/volumes/kept/disk.raw was not closed in good order: the log may hold acknowledged writes that it lacks",
    hint: "Start `varve up` once: it applies the log. Then stop it, change the image, and adopt the change.",
  },
];

const repair = async (action: string): Promise<CommandResult> =>
  varve(["image", action, "kept", "--data", data]);

const hashOf = (path: string): string =>
  existsSync(path) ? createHash("sha256").update(readFileSync(path)).digest("hex") : "none";

/**
 * A volume whose log was released: 48 MiB of writes pass a segment, the checkpoint of a resize gives it back as soon as the
 * archiver holds it in the bucket; that takes a moment, and a server that is stopped before has kept all of its log.
 */
beforeAll(async () => {
  const http = `127.0.0.1:${await freePort()}`;
  const args = ["--log-keep", "0"];
  const server = await VarveProcess.start({ dataDir: data, nbd: [nbd], http, volumes: ["kept:32M"], args });
  const client = await NbdClient.connect(nbd, "kept");
  for (let at = 0; at < 48; at += 1) await client.write((at % 32) * MiB, Buffer.alloc(MiB, at + 1));
  await client.disconnect();
  const resized = await varve(["volume", "resize", "kept", "--size", "64M", "--api", `http://${http}`]);
  expect(resized.code, resized.stderr).toBe(0);
  await vi.waitFor(
    async () => {
      const shown = await fetch(`http://${http}/v1/volumes/kept`);
      expect(((await shown.json()) as ApiVolume).figures?.oldestLsn).toBeGreaterThan(1);
    },
    { timeout: 30_000, interval: 100 },
  );
  await server.stop();
  // From now on somebody else's file.
  await run("touch", [image]);
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe("a repair that is refused", () => {
  test.each(refusals)("$id", async ({ action, given, code, says, hint }) => {
    const undo = await given();
    try {
      const before = [hashOf(image), hashOf(checkpoint)];
      const result = await repair(action);
      expect(result.stderr).toBe(`varve: ${says.replaceAll("DATA", data)}\nhint: ${hint}\n`);
      expect(result.code).toBe(code);
      expect([hashOf(image), hashOf(checkpoint)]).toEqual(before);
      expect(existsSync(`${image}.rebuild`)).toBe(false);
    } finally {
      undo();
    }
  });

  test("docs/errors.md has exactly these rows, with these messages", () => {
    const page = readFileSync(join(repositoryDir, "docs", "errors.md"), "utf8");
    const rows = new Map(
      [...page.matchAll(/^\| `(repair-[a-z-]+)` \| (.*) \|$/gm)].map(([, id = "", rest = ""]) => [id, rest]),
    );
    expect([...rows.keys()].sort()).toEqual(refusals.map(({ id }) => id).sort());
    for (const { id, says, hint, code } of refusals) {
      for (const part of [says, hint, `| ${code}`]) expect(rows.get(id), id).toContain(part);
    }
  });
});
