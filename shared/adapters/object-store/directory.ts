/*
 * A bucket in a directory: key = path. The default, DATA/bucket, and any mounted disk. A put writes a temporary file, syncs it,
 * renames it (links it, with onlyNew) and syncs the directory: readers see the whole object or none, and what a put resolved
 * survives power loss. Called by the archiver, point sources and the collector through ports/object-store.ts; opened by
 * open-object-store.ts. A directory that went away (unmounted) is Retry, never "no such object": see docs/specs/object-store.md.
 */
import type { Dirent } from "node:fs";
import { link, mkdir, open, readdir, rename, stat, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { limits } from "#shared/domain/limits.ts";
import type { Random } from "#shared/ports/clock.ts";
import type { ObjectFacts, ObjectStore, PutOptions, StoreCapabilities } from "#shared/ports/object-store.ts";
import { codeOf, directoryError } from "./directory-errors.ts";
import { DirectorySync } from "./directory-sync.ts";
import { checkKey, checkPrefix, checkSize, isObjectKey, rangeWithin } from "./object-key.ts";
import { PacedWrites } from "./paced-write.ts";
import { probeConditionalPut } from "./probe.ts";
import { RequestCounters } from "./request-counters.ts";

/** "~" is in no key, so nothing below it is ever an object. Its being there also shows that the right disk is mounted. */
const temporaryDirectory = "~tmp";

/** A part of the path is missing, is an object itself, or all of it is a directory: no object has that key. */
const nothingThere = new Set(["ENOENT", "ENOTDIR", "EISDIR"]);

export interface DirectoryObjectStoreOptions {
  readonly random: Random;
  /** Make the directory where it is missing. Without it, a missing one is Invalid. */
  readonly create?: boolean;
}

export class DirectoryObjectStore implements ObjectStore {
  readonly place: string;
  readonly counters = new RequestCounters();
  private readonly root: string;
  private readonly temporary: string;
  private readonly random: Random;
  private readonly sync = new DirectorySync();
  private readonly writes = new PacedWrites();
  private readonly knownDirectories = new Set<string>();

  private constructor(root: string, random: Random) {
    this.root = root;
    this.temporary = join(root, temporaryDirectory);
    this.random = random;
    this.place = `file://${root}`;
  }

  /** Removes temporary files of processes that were killed; one that lives writes its own again (put). */
  static async open(root: string, options: DirectoryObjectStoreOptions): Promise<DirectoryObjectStore> {
    const store = new DirectoryObjectStore(root, options.random);
    try {
      if (options.create === true) await store.makeRoot();
      await mkdir(store.temporary).catch((error: unknown) => {
        if (codeOf(error) !== "EEXIST") throw error;
      });
      await store.sync.run(root);
      for (const name of await readdir(store.temporary)) await unlinkIfThere(join(store.temporary, name));
    } catch (error) {
      throw directoryError("open", store.place, "", error, "missing");
    }
    return store;
  }

  async probe(): Promise<StoreCapabilities> {
    return { conditionalPut: await probeConditionalPut(this, this.random), durablePut: true };
  }

  async put(key: string, content: Uint8Array, options: PutOptions = {}): Promise<"stored" | "exists"> {
    checkKey("put", this.place, key);
    checkSize("put", this.place, key, content.length);
    this.counters.request("put", content.length);
    const path = join(this.root, key);
    for (let attempt = 1; ; attempt += 1) {
      const temporary = join(this.temporary, this.random.hex(16));
      try {
        await this.writeSynced(temporary, content);
        await this.makeParents(dirname(path));
        const answer =
          options.onlyNew === true ? await linkNew(temporary, path) : await moveOver(temporary, path);
        await this.sync.run(dirname(path));
        return answer;
      } catch (error) {
        await unlinkIfThere(temporary).catch(() => undefined);
        if (codeOf(error) === "ENOENT" && (await this.isThere())) {
          // Another process removed our temporary file at its start, or somebody an empty directory.
          this.knownDirectories.clear();
          this.counters.retries += 1;
          if (attempt < limits.bucketDirectoryPutsMax) continue;
        }
        throw directoryError("put", this.place, key, error);
      }
    }
  }

  async get(
    key: string,
    range?: { readonly start: number; readonly length: number },
  ): Promise<Buffer | null> {
    checkKey("get", this.place, key);
    this.counters.request("get");
    const content = await this.orNull("get", key, async () => {
      const file = await open(join(this.root, key), "r");
      try {
        const facts = await file.stat();
        if (!facts.isFile()) return null;
        const { start, end } = rangeWithin(facts.size, range);
        checkSize("get", this.place, key, end - start);
        return await readExactly(file, start, end - start);
      } finally {
        await file.close();
      }
    });
    this.counters.received(content?.length ?? 0);
    return content;
  }

  async head(key: string): Promise<ObjectFacts | null> {
    checkKey("head", this.place, key);
    this.counters.request("head");
    return await this.orNull("head", key, () => this.facts(key));
  }

  async remove(key: string): Promise<void> {
    checkKey("delete", this.place, key);
    this.counters.request("delete");
    const path = join(this.root, key);
    await this.orNull("delete", key, async () => {
      await unlinkIfThere(path);
      // Also where it was gone already: the one who removed it may have died before the sync.
      await this.sync.run(dirname(path));
      return null;
    });
  }

  async *list(prefix: string): AsyncGenerator<ObjectFacts> {
    checkPrefix(this.place, prefix);
    this.counters.request("list");
    const slash = prefix.lastIndexOf("/");
    yield* this.walk(prefix.slice(0, slash + 1), prefix);
    // A disk that was unmounted meanwhile looks like a bucket with fewer objects.
    if (!(await this.isThere())) throw directoryError("list", this.place, prefix, { code: "ENOENT" });
  }

  async close(): Promise<void> {}

  /** `directory` is "" or ends with "/". Names are sorted, so that the order is the same on every file system. */
  private async *walk(directory: string, prefix: string): AsyncGenerator<ObjectFacts> {
    const entries = await this.orNull("list", "", () =>
      readdir(join(this.root, directory), { withFileTypes: true }),
    );
    for (const entry of (entries ?? []).sort(byName)) {
      const key = `${directory}${entry.name}`;
      if (!isObjectKey(key)) continue;
      if (entry.isDirectory()) {
        const below = `${key}/`;
        if (below.startsWith(prefix) || prefix.startsWith(below)) yield* this.walk(below, prefix);
      } else if (key.startsWith(prefix)) {
        const facts = await this.orNull("list", key, () => this.facts(key));
        if (facts !== null) yield facts;
      }
    }
  }

  private async facts(key: string): Promise<ObjectFacts | null> {
    const facts = await stat(join(this.root, key));
    return facts.isFile() ? { key, bytes: facts.size, modifiedMs: facts.mtimeMs } : null;
  }

  /** null where nothing has that name, after a look whether the bucket itself is still there. */
  private async orNull<T>(operation: string, key: string, work: () => Promise<T | null>): Promise<T | null> {
    try {
      return await work();
    } catch (error) {
      const code = codeOf(error);
      if (nothingThere.has(code) && (await this.isThere())) return null;
      throw directoryError(operation, this.place, key, error);
    }
  }

  private async isThere(): Promise<boolean> {
    return await stat(this.temporary).then(
      (facts) => facts.isDirectory(),
      () => false,
    );
  }

  private async writeSynced(path: string, content: Uint8Array): Promise<void> {
    const file = await open(path, "wx", 0o600);
    try {
      await this.writes.write(file, content);
      await file.sync();
    } finally {
      await file.close();
    }
  }

  /** Each missing directory up to the root, its name made durable in its parent. Never the root itself. */
  private async makeParents(directory: string): Promise<void> {
    if (directory === this.root || this.knownDirectories.has(directory)) return;
    const parent = dirname(directory);
    await this.makeParents(parent);
    await mkdir(directory).catch((error: unknown) => {
      if (codeOf(error) !== "EEXIST") throw error;
    });
    await this.sync.run(parent);
    if (this.knownDirectories.size >= limits.bucketDirectoriesKnownMax) this.knownDirectories.clear();
    this.knownDirectories.add(directory);
  }

  private async makeRoot(): Promise<void> {
    const made = await mkdir(this.root, { recursive: true });
    if (made === undefined) return;
    for (let at = this.root; at.length >= made.length; at = dirname(at)) await this.sync.run(dirname(at));
  }
}

function byName(left: Dirent, right: Dirent): number {
  return left.name < right.name ? -1 : 1;
}

async function moveOver(temporary: string, path: string): Promise<"stored"> {
  await rename(temporary, path);
  return "stored";
}

async function linkNew(temporary: string, path: string): Promise<"stored" | "exists"> {
  const answer = await link(temporary, path).then(
    () => "stored" as const,
    (error: unknown) => {
      if (codeOf(error) !== "EEXIST") throw error;
      return "exists" as const;
    },
  );
  await unlinkIfThere(temporary);
  return answer;
}

async function unlinkIfThere(path: string): Promise<void> {
  await unlink(path).catch((error: unknown) => {
    if (codeOf(error) !== "ENOENT") throw error;
  });
}

async function readExactly(
  file: Awaited<ReturnType<typeof open>>,
  start: number,
  length: number,
): Promise<Buffer> {
  const content = Buffer.allocUnsafe(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await file.read(content, done, length - done, start + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return content.subarray(0, done);
}
