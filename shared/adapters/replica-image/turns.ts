/*
 * One at a time, in the order of asking: what changes an image's file and its extent table together (applies, fills,
 * punches) takes a turn, so that fetched bytes never overtake newer ones. Held for local work only, never while the bucket
 * is asked. Used by raw-file.ts and image-extents.ts.
 */

export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `work` after all that was asked for before has ended, whatever became of it. */
  take<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => undefined);
    return result;
  }
}
