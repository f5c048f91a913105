/*
 * Starts writing the image's dirty pages out in slices as they come, one slice at a time, so that a checkpoint's sync finds
 * little left and never stands as one long queue in front of the log's syncs. Owned by raw-file.ts, which tells it what was
 * applied; the kernel does the writing.
 */
import type { BlockFile } from "#shared/ports/file-store.ts";

export class WritebackPacer {
  readonly #file: Pick<BlockFile, "startWriteback">;
  readonly #sliceBytes: number;
  #dirtyBytes = 0;
  #underWay = false;
  slices = 0;

  constructor(file: Pick<BlockFile, "startWriteback">, sliceBytes: number) {
    this.#file = file;
    this.#sliceBytes = sliceBytes;
  }

  /** So many bytes were written to the image, anywhere in it. */
  wrote(bytes: number, imageBytes: number): void {
    this.#dirtyBytes += bytes;
    if (this.#dirtyBytes < this.#sliceBytes || this.#underWay) return;
    this.#dirtyBytes = 0;
    this.#underWay = true;
    this.slices += 1;
    // The whole file: everything older has been started, so what is dirty now is this slice.
    this.#file.startWriteback(0, imageBytes).then(
      () => this.#ended(imageBytes),
      // A hint that failed costs nothing: the next sync finds the pages, or reports their loss.
      () => this.#ended(imageBytes),
    );
  }

  /** A sync was begun: what was dirty is on its way. */
  synced(): void {
    this.#dirtyBytes = 0;
  }

  #ended(imageBytes: number): void {
    this.#underWay = false;
    this.wrote(0, imageBytes);
  }
}
