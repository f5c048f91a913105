// Memory that is full, as on a machine that has run for a day: page cache of a file that nobody needs, which goes when others want room.
// A virtual machine that has given free memory back gets each page from its host at the next touch, five times slower here than a page
// that is there; a bench that removes its data after each run would measure that. Caller: ground of bench.ts, before each run.
import { closeSync, openSync, readFileSync, readSync, rmSync, statfsSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const pieceBytes = 4 * 2 ** 20;
/** What the run's own processes and files in the making need at once. */
const freeBytes = 1.5 * 2 ** 30;

export class FullMemory {
  readonly #path = join(tmpdir(), `varve-bench-memory-${process.pid}`);
  readonly #piece = Buffer.alloc(pieceBytes, 1);
  #bytes = 0;

  /** Writes the file at the first call; later calls read it, which brings back what has gone. */
  fill(): void {
    if (this.#bytes === 0) this.#write();
    const file = openSync(this.#path, "r");
    try {
      while (readSync(file, this.#piece, 0, pieceBytes, null) > 0);
    } finally {
      closeSync(file);
    }
  }

  end(): void {
    rmSync(this.#path, { force: true });
  }

  #write(): void {
    const { bavail, bsize } = statfsSync(tmpdir());
    const wanted = Math.min(availableBytes() - freeBytes, (bavail * bsize) / 3);
    const file = openSync(this.#path, "w");
    try {
      for (; this.#bytes < wanted; this.#bytes += pieceBytes) writeSync(file, this.#piece);
    } finally {
      closeSync(file);
    }
  }
}

function availableBytes(): number {
  const line = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync("/proc/meminfo", "utf8"));
  return Number(line?.[1] ?? 0) * 1024;
}
