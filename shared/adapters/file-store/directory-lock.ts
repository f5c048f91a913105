/*
 * One process per data directory: an exclusive OFD lock on the file `varve.lock` in it, with the holder's pid as content for
 * the next one's error message. The kernel gives the lock back when the process ends, however it ends. Called by native.ts
 * for lockDirectory().
 */
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { FileStoreError } from "#shared/domain/errors.ts";
import type { DirectoryLock } from "#shared/ports/file-store.ts";
import { errnoName } from "./libc.ts";
import { lockWholeFile } from "./ofd-lock.ts";

export const lockFileName = "varve.lock";

export async function takeDirectoryLock(path: string): Promise<DirectoryLock> {
  const file = await open(join(path, lockFileName), "a+");
  const failure = lockWholeFile(file.fd);
  if (failure !== 0) {
    const hint = await holderHint(file);
    await file.close();
    throw new FileStoreError("lock directory", path, errnoName(failure), { hint });
  }
  await file.truncate(0);
  await file.write(`${process.pid}\n`);
  return {
    release: () => file.close(),
  };
}

async function holderHint(file: FileHandle): Promise<string> {
  const bytes = Buffer.alloc(32);
  const { bytesRead } = await file.read(bytes, 0, bytes.length, 0);
  const pid = Number.parseInt(bytes.toString("latin1", 0, bytesRead), 10);
  const holder = Number.isSafeInteger(pid) ? `Process ${pid}` : "Another process";
  return `${holder} uses this data directory. Stop it first, or take another directory.`;
}
