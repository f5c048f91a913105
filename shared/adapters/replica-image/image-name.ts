/*
 * The image file's name: `disk.raw` promises that the file is the disk, so a file with any extent that is not local is
 * `disk.raw.partial`. It becomes partial before the first checkpoint that says so, and whole after the first that says that
 * again; a crash in between leaves a name that promises too little, and attach puts it right. Owned by raw-file.ts.
 */
import { dataLayout, partialImagePathOf } from "#shared/domain/data-layout.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { FileStore } from "#shared/ports/file-store.ts";

export class ImageName {
  readonly #store: FileStore;
  readonly #directory: string;
  readonly #whole: string;
  #partial: boolean;
  /** False between a rename and the sync of its directory. */
  #durable = true;

  private constructor(store: FileStore, directory: string, partial: boolean) {
    this.#store = store;
    this.#directory = directory;
    this.#whole = `${directory}/${dataLayout.image}`;
    this.#partial = partial;
  }

  /** A name for a file that is about to be made. */
  static of(store: FileStore, directory: string, partial: boolean): ImageName {
    return new ImageName(store, directory, partial);
  }

  /** The name that the directory's image has now. Rejects Invalid where there is none, or two. */
  static async find(store: FileStore, directory: string): Promise<ImageName> {
    const whole = `${directory}/${dataLayout.image}`;
    const partial = partialImagePathOf(whole);
    const hasPartial = (await store.facts(partial)) !== null;
    const hasWhole = (await store.facts(whole)) !== null;
    if (hasPartial && hasWhole) {
      throw new VarveError("ImageAmbiguous", "Invalid", `there are two images, ${whole} and ${partial}`, {
        hint: "One of them was put there by hand. Move that one away; the other is the volume's.",
        fields: { whole, partial },
      });
    }
    if (!hasPartial && !hasWhole) {
      throw new VarveError("ImageMissing", "Invalid", `the image ${whole} does not exist`, {
        hint: "Put it back, or build it again from the log: `varve image discard NAME`.",
        fields: { path: whole },
      });
    }
    return new ImageName(store, directory, hasPartial);
  }

  get path(): string {
    return this.#partial ? partialImagePathOf(this.#whole) : this.#whole;
  }

  get partial(): boolean {
    return this.#partial;
  }

  /** Whether become() has nothing to do. */
  is(partial: boolean): boolean {
    return this.#partial === partial && this.#durable;
  }

  /** Renames where it has to. Durable when it resolves. */
  async become(partial: boolean): Promise<void> {
    if (this.#partial !== partial) {
      const from = this.path;
      this.#durable = false;
      const to = partial ? partialImagePathOf(this.#whole) : this.#whole;
      await this.#store.rename(from, to).catch(async (cause: unknown) => {
        // It may have happened although the answer was an error.
        if ((await this.#store.facts(to)) === null || (await this.#store.facts(from)) !== null) throw cause;
      });
      this.#partial = partial;
    }
    if (this.#durable) return;
    await this.#store.syncDirectory(this.#directory);
    this.#durable = true;
  }
}
