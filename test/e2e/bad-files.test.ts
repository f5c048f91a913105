// Each row of docs/errors.md that damaged, missing or foreign files cause: a data directory with two volumes is stopped, one
// thing in it is damaged in place, `varve up` is started on it. Asserts exit code, message and hint, and that catalogue,
// images and logs are byte for byte what they were after the damage. Then the damage is undone and the volume served again.
// Damage inside formats, bit by bit: test/golden, test/unit/formats, test/unit/write-log.
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { checksumOf } from "#shared/formats/checksum.ts";
import { NbdClient } from "../tools/nbd-client.ts";
import { type CommandResult, varve } from "../tools/varve-command.ts";
import { repositoryDir, VarveProcess } from "../tools/varve-process.ts";

const directory = mkdtempSync(join(tmpdir(), "varve-files-"));
const nbd = `unix:${join(directory, "nbd.sock")}`;
const text = Buffer.from("what was there before");

async function serve(dataDir: string): Promise<VarveProcess> {
  return await VarveProcess.start({ dataDir, nbd: [nbd], volumes: ["kept:8M", "other:8M"] });
}

async function makeData(name: string): Promise<string> {
  const dataDir = join(directory, name);
  const server = await serve(dataDir);
  const client = await NbdClient.connect(nbd, "kept");
  await client.write(0, text);
  await client.disconnect();
  await server.stop();
  // The next writer's first record says that the write was durable: from then on its loss is damage, not a torn tail.
  await (await serve(dataDir)).stop();
  return dataDir;
}

/** `varve up` as it would be typed; every damage here must end it. */
async function upFails(dataDir: string): Promise<CommandResult> {
  return await varve(["up", "--data", dataDir, "--nbd", nbd, "--http", "off", "--volume", "kept:8M"]);
}

/** Puts the file aside and, if there is any, `content` in its place; the way back is returned. */
function replaced(path: string, content: Uint8Array | null): Undo {
  renameSync(path, `${path}.aside`);
  if (content !== null) writeFileSync(path, content);
  return () => {
    rmSync(path, { force: true });
    renameSync(`${path}.aside`, path);
  };
}

function flip(path: string, offset: number): Undo {
  flipBit(path, offset);
  return () => flipBit(path, offset);
}

function flipBit(path: string, offset: number): void {
  const bytes = readFileSync(path);
  bytes[offset] = (bytes[offset] ?? 0) ^ 4;
  writeFileSync(path, bytes);
}

/** Rewrites the catalogue's text and gives it a checksum that fits, as a newer version or a bug would. */
function forgeCatalog(dataDir: string, edit: (text: string) => string): Undo {
  const path = join(dataDir, "catalog.json");
  const [body = ""] = readFileSync(path, "utf8").split('  "checksum"');
  const covered = edit(body);
  const sum = checksumOf(Buffer.from(covered)).toString(16).padStart(16, "0");
  return replaced(path, Buffer.from(`${covered}  "checksum": "xxh64:${sum}"\n}\n`));
}

/**
 * Hashes of the catalogue and of all files of `kept`, but not of its checkpoint: attaching marks the image as attached before
 * the log is looked at. The other volume may be opened and closed meanwhile, which its log remembers.
 */
function dataOf(dataDir: string): Record<string, string> {
  const hash = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");
  const volume = join(dataDir, "volumes", "kept");
  const files = readdirSync(volume, { recursive: true, encoding: "utf8" }).filter(
    (name) => name !== "log" && !name.endsWith(".checkpoint"),
  );
  const hashes = files.map((name) => [name, hash(join(volume, name))] as const);
  const catalog = readdirSync(dataDir).filter((name) => name === "catalog.json");
  return Object.fromEntries([
    ...hashes,
    ...catalog.map((name) => [name, hash(join(dataDir, name))] as const),
  ]);
}

type Undo = () => void;

interface Damage {
  readonly id: string;
  readonly do: (dataDir: string) => Undo;
  readonly code: number;
  /** `DATA` stands for the data directory, as in the page. */
  readonly says: string;
  readonly hint: string;
}

const inVolume = (dataDir: string, ...path: string[]): string => join(dataDir, "volumes", "kept", ...path);
const segment = "00000001.log";
const discardHint =
  "`varve image discard NAME` builds the image again from the log, where the log still reaches back to the first entry.";
const logHint =
  "Nothing was changed. Keep a copy of the log folder, look at it with `varve log inspect`, check the disk, and restore the file from a copy.";

const damages: readonly Damage[] = [
  {
    id: "file-catalog-missing",
    do: (data) => replaced(join(data, "catalog.json"), null),
    code: 65,
    says: "data directory DATA has volumes (kept, other) but no catalog.json",
    hint: "Put catalog.json back from a backup. Each volumes/NAME/disk.raw is a plain raw image and can be copied.",
  },
  {
    id: "file-catalog-damaged",
    do: (data) => flip(join(data, "catalog.json"), 60),
    code: 65,
    says: "DATA/catalog.json: not a usable catalogue: its checksum does not match its text (damaged, or edited by hand)",
    hint: "Nothing was changed. Put back the file from a backup; the volumes' logs and images are untouched.",
  },
  {
    id: "file-catalog-cut",
    do: (data) =>
      replaced(join(data, "catalog.json"), readFileSync(join(data, "catalog.json")).subarray(0, 100)),
    code: 65,
    says: "DATA/catalog.json: not a usable catalogue: it does not end with a checksum line (cut off, or edited)",
    hint: "Nothing was changed. Put back the file from a backup; the volumes' logs and images are untouched.",
  },
  {
    id: "file-catalog-version",
    do: (data) => forgeCatalog(data, (body) => body.replace('"version": 1', '"version": 6')),
    code: 2,
    says: "DATA/catalog.json: catalogue version 6 is not known",
    hint: "It was written by a newer Varve: use that version. Nothing was changed.",
  },
  {
    id: "file-catalog-content",
    do: (data) =>
      forgeCatalog(data, (body) =>
        body.replace('"name":"kept"', '"name":"Kept"').replace(/"sizeBytes":\d+/, '"sizeBytes":1'),
      ),
    code: 65,
    says: "DATA/catalog.json: volumes[0].name must be made of a-z, 0-9, '.', '_' and '-', and start with a letter or digit (lower case); volumes[0].sizeBytes is below the least size, 512 bytes",
    hint: "Nothing was changed.",
  },
  {
    id: "file-checkpoint-missing",
    do: (data) => replaced(inVolume(data, "disk.raw.checkpoint"), null),
    code: 65,
    says: "the image has no checkpoint: DATA/volumes/kept/disk.raw.checkpoint does not exist",
    hint: discardHint,
  },
  {
    id: "file-checkpoint-damaged",
    do: (data) => flip(inVolume(data, "disk.raw.checkpoint"), 100),
    code: 65,
    says: "DATA/volumes/kept/disk.raw.checkpoint: the checkpoint's checksum does not match its bytes",
    hint: discardHint,
  },
  {
    id: "file-log-header",
    do: (data) => flip(inVolume(data, "log", segment), 9),
    code: 65,
    says: "the log is damaged at LSN 1: no segment starts here (DATA/volumes/kept/log/00000001.log, byte 0)",
    hint: logHint,
  },
  {
    id: "file-log-record",
    do: (data) => flip(inVolume(data, "log", segment), 2 * 4096 + 16),
    code: 65,
    says: "the log is damaged at LSN 2: the header's checksum does not match its bytes (DATA/volumes/kept/log/00000001.log, byte 8192)",
    hint: logHint,
  },
  {
    id: "file-log-missing",
    do: (data) => {
      renameSync(inVolume(data, "log"), `${data}-log-aside`);
      return () => {
        rmSync(inVolume(data, "log"), { recursive: true, force: true });
        renameSync(`${data}-log-aside`, inVolume(data, "log"));
      };
    },
    code: 65,
    says: "the log ends at LSN 0 (DATA/volumes/kept/log, byte 0: no record), but LSN",
    hint: "The log folder is older than the image, damaged or was emptied. Nothing was changed. Put the right files back.",
  },
  {
    id: "file-log-foreign",
    do: (data) =>
      replaced(inVolume(data, "log", segment), readFileSync(join(data, "volumes", "other", "log", segment))),
    code: 65,
    says: "DATA/volumes/kept/log/00000001.log belongs to volume",
    hint: "A log folder holds the files of one volume only. Move the file that does not belong here away.",
  },
];

const imageDamages: readonly Damage[] = [
  {
    id: "file-image-missing",
    do: (data) => replaced(inVolume(data, "disk.raw"), null),
    code: 2,
    says: "the image DATA/volumes/kept/disk.raw does not exist",
    hint: "Put it back, or build it again from the log: `varve image discard NAME`.",
  },
  {
    id: "file-image-replaced",
    do: (data) => replaced(inVolume(data, "disk.raw"), readFileSync(inVolume(data, "disk.raw"))),
    code: 2,
    says: "DATA/volumes/kept/disk.raw was changed while Varve did not hold it: it is another file (a copy, or one put in its place)",
    hint: "Keep the change: `varve image adopt NAME`. Throw it away and fill the image from the log again: `varve image discard NAME`.",
  },
];

const fileRow: Damage = {
  id: "file-not-a-directory",
  do: () => () => {},
  code: 2,
  says: "data directory DATA is a file",
  hint: "Give --data a directory that this user may write to.",
};

let data = "";
beforeAll(async () => {
  data = await makeData("data");
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

async function assertRefused(dataDir: string, damage: Damage): Promise<void> {
  const undo = damage.do(dataDir);
  try {
    const before = dataOf(dataDir);
    const result = await upFails(dataDir);
    const [message = "", hint = "", ...rest] = result.stderr.trimEnd().split("\n");
    const says = `varve: ${damage.says.replaceAll("DATA", dataDir)}`;
    // Ids of volumes are random: such a message is given by its beginning.
    expect(message.slice(0, says.length)).toBe(says);
    expect(hint).toBe(`hint: ${damage.hint}`);
    expect(rest).toEqual([]);
    expect(result.code).toBe(damage.code);
    expect(dataOf(dataDir)).toEqual(before);
  } finally {
    undo();
  }
}

describe("a damaged data directory", () => {
  test.each(damages)("$id", async (damage) => {
    await assertRefused(data, damage);
  });

  test("serves again, with every byte, when the damage is undone", async () => {
    const server = await serve(data);
    const client = await NbdClient.connect(nbd, "kept");
    expect((await client.read(0, text.length)).equals(text)).toBe(true);
    await client.disconnect();
    await server.stop();
  });

  // Last, because the image's times tell that it was moved.
  test.each(imageDamages)("$id", async (damage) => {
    await assertRefused(data, damage);
  });

  test("file-not-a-directory", async () => {
    const path = join(directory, "file");
    writeFileSync(path, "a letter");
    const result = await upFails(path);
    expect(result.stderr).toBe(`varve: ${fileRow.says.replaceAll("DATA", path)}\nhint: ${fileRow.hint}\n`);
    expect(result.code).toBe(fileRow.code);
    expect(readFileSync(path, "utf8")).toBe("a letter");
  });
});

test("a volume that can't be opened keeps nobody else from being served, unless it was asked for by name", async () => {
  const dataDir = await makeData("one-bad");
  flip(inVolume(dataDir, "log", segment), 9);
  const server = await VarveProcess.start({ dataDir, nbd: [nbd], volumes: ["other:8M"] });
  await server.says("warning: volume kept is not served: the log is damaged at LSN 1");
  const client = await NbdClient.connect(nbd, "other");
  await client.write(0, text);
  await client.disconnect();
  await expect(NbdClient.connect(nbd, "kept")).rejects.toThrow("the log is damaged at LSN 1");
  await server.stop();
});

test("docs/errors.md has exactly these rows, with these messages", () => {
  const page = readFileSync(join(repositoryDir, "docs", "errors.md"), "utf8");
  const rows = new Map(
    [...page.matchAll(/^\| `(file-[a-z-]+)` \| (.*) \|$/gm)].map(([, id = "", rest = ""]) => [id, rest]),
  );
  const all = [...damages, ...imageDamages, fileRow];
  expect([...rows.keys()].sort()).toEqual(all.map((damage) => damage.id).sort());
  for (const { id, says, hint, code } of all) {
    for (const part of [says, hint, `| ${code}`]) expect(rows.get(id), id).toContain(part);
  }
});
