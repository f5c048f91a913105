/*
 * How far a copy is that this process makes itself: a bar on a terminal, else a plain line every ten seconds, nothing with --json.
 * commands/move.ts calls it; job-progress.ts shows the jobs of a server in the same way.
 */
import { barText, lineText } from "./job-progress.ts";
import { printNote } from "./output.ts";

const barMs = 100;
const lineMs = 10_000;

export class CopyProgress {
  readonly #volume: string;
  readonly #terminal: boolean;
  readonly #quiet: boolean;
  #shownAtMs = performance.now();
  #what = "";

  constructor(volume: string, quiet: boolean) {
    this.#volume = volume;
    this.#quiet = quiet;
    this.#terminal = process.stderr.isTTY && !quiet;
  }

  show(doneBytes: number, totalBytes: number, what: string): void {
    const due = performance.now() - this.#shownAtMs >= (this.#terminal ? barMs : lineMs);
    if (this.#quiet || (!due && what === this.#what)) return;
    this.#shownAtMs = performance.now();
    this.#what = what;
    const job = { doneBytes, totalBytes, note: what, kind: "move" as const, volume: this.#volume };
    if (this.#terminal) process.stderr.write(`\r${barText(job)}\u001b[K`);
    else printNote(lineText(job));
  }

  end(): void {
    if (this.#terminal) process.stderr.write("\r\u001b[K");
  }
}
