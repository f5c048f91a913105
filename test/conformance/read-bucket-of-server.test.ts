// The second reader on a bucket that a real `varve up` made: random writes, zeroes and trims by an NBD client, snapshots, a
// rollback, a clone, a kill -9. What the Python reader exports, what Varve serves as `volume@snapshot` and what the test's own
// model says must be the same bytes. Buckets made without a server, and damage: read-bucket.test.ts.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { freePort } from "../tools/free-port.ts";
import { NbdClient } from "../tools/nbd-client.ts";
import { SeededRandom } from "../tools/seeded-random.ts";
import { inTemporaryDirectory, run, varve } from "../tools/varve-command.ts";
import { VarveProcess } from "../tools/varve-process.ts";

const MiB = 1024 * 1024;
const sizeBytes = 21 * MiB;
const pieceBytes = 7 * MiB;

async function readAll(address: string, name: string): Promise<Buffer> {
  const client = await NbdClient.connect(address, name);
  const pieces: Buffer[] = [];
  for (let at = 0; at < sizeBytes; at += pieceBytes) pieces.push(await client.read(at, pieceBytes));
  await client.disconnect();
  return Buffer.concat(pieces);
}

/** Random changes to the disk and to the model of it. */
async function change(address: string, name: string, model: Buffer, random: SeededRandom): Promise<void> {
  const client = await NbdClient.connect(address, name);
  for (let round = 0; round < 40; round += 1) {
    const length = random.logUniform(1, 2 * MiB);
    const offset = random.between(0, sizeBytes - length);
    const kind = random.weighted({ write: 6, trim: 2, zeroes: 1 });
    if (kind === "trim") await client.trim(offset, length);
    if (kind === "zeroes") await client.writeZeroes(offset, length);
    if (kind !== "write") {
      model.fill(0, offset, offset + length);
      continue;
    }
    const data = Buffer.alloc(length);
    for (let at = 0; at + 4 <= length; at += 4)
      data.writeUInt32LE(random.chance(0.5) ? random.uint32() : at, at);
    await client.write(offset, data);
    data.copy(model, offset);
  }
  await client.disconnect();
}

async function command(...words: readonly string[]): Promise<void> {
  const result = await varve(words);
  if (result.code !== 0) throw new Error(`varve ${words.join(" ")}: exit ${result.code}\n${result.stderr}`);
}

test("exports every snapshot of a served volume and of its clone", async () => {
  await inTemporaryDirectory(async (directory) => {
    const nbd = `unix:${join(directory, "nbd.sock")}`;
    const http = `127.0.0.1:${await freePort()}`;
    const api = ["--api", `http://${http}`];
    const dataDir = join(directory, "data");
    let server = await VarveProcess.start({ dataDir, nbd: [nbd], http, volumes: ["disk0:21M"] });
    const random = new SeededRandom(20_261_121);
    const model = Buffer.alloc(sizeBytes);
    const past = new Map<string, Buffer>();
    const live = async (volume: string, snapshot: string): Promise<void> => {
      await change(nbd, volume, model, random);
      await command("snapshot", "create", volume, snapshot, ...api);
      past.set(`${volume}@${snapshot}`, Buffer.from(model));
    };
    await live("disk0", "first");
    await live("disk0", "second");
    await live("disk0", "third");
    await command("volume", "rollback", "disk0", "--to", "second", ...api);
    (past.get("disk0@second") as Buffer).copy(model);
    await live("disk0", "fourth");
    await server.kill9();
    server = await server.restart();
    await command("volume", "create", "copy", "--from", "disk0@third", ...api);
    (past.get("disk0@third") as Buffer).copy(model);
    await live("copy", "fifth");
    // A clone waits until its origin is archived: what a slow machine could leave for the next start is in the bucket now.
    await command("volume", "create", "of-disk0", "--from", "disk0@fourth", ...api);
    await command("volume", "create", "of-copy", "--from", "copy@fifth", ...api);
    for (const [point, expected] of past) {
      expect((await readAll(nbd, point)).equals(expected), `${point} over NBD`).toBe(true);
    }
    await server.stop();

    const out = join(directory, "out.raw");
    for (const [point, expected] of past) {
      const [volume = "", snapshot = ""] = point.split("@");
      const words = [
        "-B",
        "test/oracle/read_bucket.py",
        join(dataDir, "bucket"),
        "export",
        volume,
        snapshot,
        out,
      ];
      expect(await run("/usr/bin/python3", words)).toMatchObject({ code: 0, stderr: "" });
      expect(readFileSync(out).equals(expected), `${point} by the second reader`).toBe(true);
    }
  });
});
