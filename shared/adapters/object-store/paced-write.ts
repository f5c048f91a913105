/*
 * Writes objects' files in slices, each with the disk before the next begins, one slice of all files at a time: log and images lie on the
 * same disk more often than not, and a log's sync would queue behind whole objects. Only the sync that follows makes the
 * content durable. Called by directory.ts.
 */
import type { FileHandle } from "node:fs/promises";
import { constants } from "node:os";
import { getSystemErrorName } from "node:util";
import koffi from "koffi";
import { limits } from "#shared/domain/limits.ts";
import { library } from "#shared/native/library.ts";

const writeAndWait = 7;
/** The file system knows no such thing: the sync at the end does all of it. */
const unable = new Set<number>([constants.errno.EINVAL, constants.errno.ENOSYS, constants.errno.EOPNOTSUPP]);

const syncFileRange = library.func(
  "int sync_file_range(int fd, int64_t offset, int64_t length, unsigned int flags)",
);

export class PacedWrites {
  private last: Promise<void> = Promise.resolve();

  /** Resolves when all of `content` is in the file, which is new. Rejects as a failed sync does: pages may be lost. */
  async write(file: FileHandle, content: Uint8Array): Promise<void> {
    const slice = limits.bucketDirectorySliceBytes;
    if (content.length <= slice) {
      await file.writeFile(content);
      return;
    }
    for (let at = 0; at < content.length; at += slice) {
      const length = Math.min(slice, content.length - at);
      await this.inTurn(async () => {
        await writeAll(file, content.subarray(at, at + length), at);
        await pushOut(file.fd, at, length);
      });
    }
  }

  private inTurn(work: () => Promise<void>): Promise<void> {
    const turn = this.last.then(work);
    this.last = turn.catch(() => undefined);
    return turn;
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, offset + done);
    done += bytesWritten;
  }
}

function pushOut(fd: number, offset: number, length: number): Promise<void> {
  return new Promise((resolve, reject) => {
    syncFileRange.async(fd, offset, length, writeAndWait, (_error: unknown, result: number) => {
      const failure = result === 0 ? 0 : koffi.errno();
      if (failure === 0 || unable.has(failure)) resolve();
      else reject(Object.assign(new Error("sync_file_range"), { code: getSystemErrorName(-failure) }));
    });
  });
}
