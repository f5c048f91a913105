// Memory that is full, as on a machine that has run for a day: page cache of a file that nobody needs, which goes when others want room.
// A virtual machine that has given free memory back gets each page from its host at the next touch, five times slower here than a page
// that is there; a bench that removes its data after each run would measure that. Caller: archive-rows.ts, before each run.
import { closeSync, openSync, readFileSync, readSync, rmSync, statfsSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const pieceBytes = 4 * 2 ** 20;
/** What the run's own processes and files in the making need at once. */
const freeBytes = 1.5 * 2 ** 30;

export class FullMemory {
  readonly #piece = Buffer.alloc(pieceBytes, 1);
  #file: number | null = null;
  #bytes = 0;

  /** Writes the file at the first call; later calls read it, which brings back what has gone. */
  fill(): void {
    this.#file ??= this.#write();
    for (let at = 0; at < this.#bytes; at += pieceBytes) readSync(this.#file, this.#piece, 0, pieceBytes, at);
  }

  end(): void {
    if (this.#file !== null) closeSync(this.#file);
    this.#file = null;
  }

  /** Without a name, so that its room is free however this process ends. */
  #write(): number {
    const { bavail, bsize } = statfsSync(tmpdir());
    const wanted = Math.min(availableBytes() - freeBytes, (bavail * bsize) / 3);
    const path = join(tmpdir(), `varve-bench-memory-${process.pid}`);
    const file = openSync(path, "w+");
    rmSync(path);
    for (; this.#bytes < wanted; this.#bytes += pieceBytes) writeSync(file, this.#piece);
    return file;
  }
}

function availableBytes(): number {
  const line = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync("/proc/meminfo", "utf8"));
  return Number(line?.[1] ?? 0) * 1024;
}
