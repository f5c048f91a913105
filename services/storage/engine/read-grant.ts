/*
 * The note beside one replica's image by which a gateway on the same host reads the image directly (docs/specs/cluster.md#reads-on-the-same-host).
 * What it shows is revoked before anything happens that such a reader must not see: a replay, a newer writer's batches, a halt, a
 * detach. Made by replica-set.ts before the image is attached, used by replica-follower.ts.
 */
import { readGrantPathOf } from "#shared/domain/data-layout.ts";
import { encodeReadGrant, readGrantBytes } from "#shared/formats/read-grant.ts";
import type { Random } from "#shared/ports/clock.ts";
import type { BlockFile, FileStore } from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";

export class ReadGrant {
  readonly imagePath: string;
  readonly #file: BlockFile;
  readonly #random: Random;
  readonly #slab: Slab;
  #token: string | null = null;

  private constructor(imagePath: string, file: BlockFile, random: Random, slab: Slab) {
    this.imagePath = imagePath;
    this.#file = file;
    this.#random = random;
    this.#slab = slab;
  }

  /** Whatever an earlier process granted is void when it resolves. */
  static async open(
    store: Pick<FileStore, "open">,
    random: Random,
    imagePath: string,
    /** A page; all grants of a process may share one. */
    slab: Slab,
  ): Promise<ReadGrant> {
    const file = await store.open(readGrantPathOf(imagePath), { create: true, access: "buffered" });
    const grant = new ReadGrant(imagePath, file, random, slab);
    try {
      grant.#write(0);
    } catch (cause) {
      await file.close();
      throw cause;
    }
    return grant;
  }

  /** The token by which the image may be read, which holds every entry up to `appliedLsn`. */
  give(appliedLsn: number): string {
    if (this.#token !== null) return this.#token;
    const token = this.#random.hex(16);
    this.#token = token;
    this.#write(appliedLsn);
    return token;
  }

  /** Readers see at once that the image holds more. */
  applied(appliedLsn: number): void {
    if (this.#token === null) return;
    try {
      this.#write(appliedLsn);
    } catch {
      // They go by what was noted before, or find the note damaged and ask the node for each read.
    }
  }

  /** What is read from now on counts for nobody. Throws where that can't be said: then nothing may change in the image. */
  revoke(): void {
    const token = this.#token;
    if (token === null) return;
    this.#token = null;
    try {
      this.#write(0);
    } catch (cause) {
      // The note may still show it: it is revoked again before anything changes.
      this.#token = token;
      throw cause;
    }
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  #write(appliedLsn: number): void {
    encodeReadGrant(this.#slab.bytes, { token: this.#token, appliedLsn });
    this.#file.writeInline([{ slab: this.#slab, start: 0, length: readGrantBytes }], 0);
  }
}
