// A volume that holds file systems: a new ext4 with files goes in by nbdcopy, a snapshot is taken, and while the next one overwrites it the
// snapshot comes out by nbdcopy, the same bytes, clean for e2fsck. Caller: swarm-run.ts.

import { createHash } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { succeed } from "../tools/past-server.ts";
import { SeededRandom } from "../tools/seeded-random.ts";
import type { SwarmContext } from "./swarm-volume.ts";

export const fileSystemMiB = 32;
const restMs = 4000;
const keptSnapshots = 4;

export class FileSystemVolume {
  readonly name: string;
  private readonly directory: string;
  private readonly random: SeededRandom;
  private readonly kept: { readonly snapshot: string; readonly hash: string }[] = [];

  constructor(name: string, seed: number, directory: string) {
    this.name = name;
    this.directory = join(directory, name);
    this.random = new SeededRandom(seed);
  }

  async run(context: SwarmContext): Promise<void> {
    await mkdir(this.directory);
    let reading: Promise<void> = Promise.resolve();
    for (let round = 1; !context.signal.aborted; round += 1) {
      const image = await this.make(round);
      const hash = await hashOf(image);
      await succeed("nbdcopy", image, context.server.uri(this.name));
      const snapshot = `s${round}`;
      await context.timed("snapshot", this.name, async () => context.server.snapshot(this.name, snapshot));
      context.counts.snapshots += 1;
      context.counts.bytesWritten += fileSystemMiB * 2 ** 20;
      this.kept.push({ snapshot, hash });
      await reading;
      context.counts.pointsVerified += 1;
      reading = this.comesOut(context, snapshot, hash);
      if (this.kept.length > keptSnapshots) {
        const gone = this.kept.shift();
        await context.server.ok("DELETE", `/volumes/${this.name}/snapshots/${gone?.snapshot}`);
      }
      await context.pause(restMs);
    }
    await reading;
  }

  async judge(context: SwarmContext): Promise<void> {
    for (const { snapshot, hash } of this.kept) {
      await this.comesOut(context, snapshot, hash);
      context.counts.pointsReread += 1;
    }
  }

  private async make(round: number): Promise<string> {
    const tree = join(this.directory, "tree");
    const image = join(this.directory, "in.img");
    await rm(tree, { recursive: true, force: true });
    await rm(image, { force: true });
    await mkdir(tree);
    for (let file = 0; file < 40; file += 1) {
      const bytes = Buffer.alloc(this.random.logUniform(100, 512 * 1024), this.random.uint32() & 0xff);
      bytes.write(`round ${round}, file ${file}`);
      await writeFile(join(tree, `file${file}`), bytes);
    }
    await succeed("mke2fs", "-q", "-t", "ext4", "-d", tree, image, `${fileSystemMiB}M`);
    return image;
  }

  private async comesOut(context: SwarmContext, snapshot: string, hash: string): Promise<void> {
    const exported = `${this.name}@${snapshot}`;
    const copy = join(this.directory, "out.img");
    try {
      await succeed("nbdcopy", context.server.uri(exported), copy);
      if ((await hashOf(copy)) !== hash) context.fail(exported, "the ext4 image came back changed");
      await succeed("e2fsck", "-fn", copy);
      context.counts.fileSystems += 1;
    } catch (cause) {
      context.fail(exported, (cause as Error).message);
    }
  }
}

async function hashOf(path: string): Promise<string> {
  return createHash("sha256")
    .update(await readFile(path))
    .digest("hex");
}
