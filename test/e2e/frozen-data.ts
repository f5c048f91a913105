// What the data directory that test/golden holds of each release is made of: a volume with a snapshot, a clone, a rollback, trims, and a bucket
// with segments. older-data.test.ts reads them all; `node test/e2e/frozen-data.ts` freezes one of this release, to be added at each.
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { freePorts } from "../tools/free-port.ts";
import { NbdClient } from "../tools/nbd-client.ts";
import { repositoryDir, VarveProcess } from "../tools/varve-process.ts";

const exec = promisify(execFile);
export const frozenFolder = join(repositoryDir, "test", "golden", "data");
export const frozenSizeBytes = 4 * 2 ** 20;

/** What the disk held when the snapshot `then` was taken, and what it holds at the end. */
export function frozenContent(): { readonly past: Buffer; readonly now: Buffer } {
  const past = Buffer.alloc(frozenSizeBytes, "a layer of the past ");
  const now = Buffer.from(past);
  now.fill("a layer of the present ", 70_001, 1_200_007);
  now.fill(0, 2 * 2 ** 20, 2 * 2 ** 20 + 65_536);
  return { past, now };
}

async function freeze(): Promise<void> {
  const said = await exec(join(repositoryDir, "bin/varve"), ["version", "--json"]);
  const { varve: version } = JSON.parse(said.stdout) as { varve: string };
  const work = await mkdtemp(join(tmpdir(), "varve-freeze-"));
  const [nbd, http] = (await freePorts(2)).map((port) => `127.0.0.1:${port}`) as [string, string];
  const dataDir = join(work, "data");
  const server = await VarveProcess.start({ dataDir, nbd: [nbd], http, volumes: ["disk0:4M"] });
  const varve = (...words: string[]): Promise<unknown> =>
    exec(join(repositoryDir, "bin/varve"), [...words, "--api", `http://${http}`]);
  const { past, now } = frozenContent();
  const writeAll = async (content: Buffer): Promise<void> => {
    const client = await NbdClient.connect(nbd, "disk0");
    for (let at = 0; at < content.length; at += 2 ** 20)
      await client.write(at, content.subarray(at, at + 2 ** 20));
    await client.flush();
    await client.disconnect();
  };
  await writeAll(past);
  await varve("snapshot", "create", "disk0", "then");
  await writeAll(Buffer.alloc(frozenSizeBytes, "a mistake "));
  await varve("volume", "create", "copy", "--from", "disk0@then");
  await varve("volume", "rollback", "disk0", "--to", "then");
  const client = await NbdClient.connect(nbd, "disk0");
  await client.write(70_001, now.subarray(70_001, 1_200_007));
  await client.trim(2 * 2 ** 20, 65_536);
  await client.flush();
  await client.disconnect();
  await server.stop();
  const archive = join(frozenFolder, `${version}.tar.zst`);
  await exec("tar", ["--sparse", "-I", "zstd -19", "-C", work, "-cf", archive, "data"]);
  await rm(work, { recursive: true });
  console.log(archive);
}

if (import.meta.main) await freeze();
