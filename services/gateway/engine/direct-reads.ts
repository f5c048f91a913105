/*
 * Reads of a replica's image by the gateway itself, where its storage node is on the same host and grants it
 * (docs/specs/cluster.md#reads-on-the-same-host). Bytes count only if the grant's note says so **after** they were read: it is revoked before
 * anything comes into the image that they must not show. Made by remote-replica.ts, which asks over the bus where this says no.
 *
 *   none ─node is heard of─► asking ─granted, note agrees─► open ─note differs, read fails─► none
 */
import { readGrantPathOf } from "#shared/domain/data-layout.ts";
import { limits } from "#shared/domain/limits.ts";
import { decodeReadGrant, isBadReadGrant, readGrantBytes } from "#shared/formats/read-grant.ts";
import { decodeMessage, encodeMessage, isBadMessage } from "#shared/formats/replica-message.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { BlockFile, FileStore, OpenFileOptions } from "#shared/ports/file-store.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import type { Slab } from "#shared/ports/slab.ts";

/** What is used of an image and of its note. */
export type ReadFile = Pick<BlockFile, "readInline" | "read" | "close">;

/** Files, and two pages that all volumes of a process share: what is looked at, and what a note is brought into memory by. */
export interface DirectFiles {
  readonly store: { open(path: string, options: OpenFileOptions): Promise<ReadFile> };
  readonly noteSlab: Slab;
  readonly warmSlab: Slab;
}

export function directFiles(store: FileStore): DirectFiles {
  const { blockBytes } = limits;
  return { store, noteSlab: store.allocateSlab(blockBytes), warmSlab: store.allocateSlab(blockBytes) };
}

export interface DirectReadsOptions {
  readonly files: DirectFiles;
  readonly bus: Pick<MessageBus, "request">;
  readonly clock: Clock;
  /** Of the node on this host: where its replica answers. */
  readonly subject: string;
  /** The epoch that the replica has applied, as its answer says it. */
  readonly onEpoch: (epoch: number) => void;
  readonly counters: { directReads: number };
}

const answerMs = 1000;

interface OpenGrant {
  readonly image: ReadFile;
  readonly note: ReadFile;
  readonly token: string;
}

export class DirectReads {
  readonly #options: DirectReadsOptions;
  /** The note as it was last found good. */
  readonly #known = Buffer.alloc(readGrantBytes);
  #appliedLsn = 0;
  #grant: OpenGrant | null = null;
  #asking = false;
  #askedAtMs = Number.NEGATIVE_INFINITY;
  #closed = false;

  constructor(options: DirectReadsOptions) {
    this.#options = options;
  }

  /** At each sign of life of the node: asks for a grant, or looks whether the one there is still holds. */
  heard(): void {
    if (this.#grant !== null) {
      this.#holds(this.#grant);
      return;
    }
    const nowMs = this.#options.clock.monotonicMs();
    if (this.#asking || this.#closed || nowMs - this.#askedAtMs < limits.replicaStateMs) return;
    this.#asking = true;
    this.#askedAtMs = nowMs;
    this.#ask()
      .catch(() => undefined) // another host's path, an older node: asked again
      .finally(() => {
        this.#asking = false;
      });
  }

  /** What the page cache has, as of `leastLsn` or later; -1: ask otherwise. */
  readInline(slab: Slab, start: number, length: number, offset: number, leastLsn: number): number {
    const grant = this.#newEnough(leastLsn);
    if (grant === null) return -1;
    let got: number;
    try {
      got = grant.image.readInline(slab, start, length, offset);
    } catch {
      this.#drop(grant);
      return -1;
    }
    if (got <= 0 || !this.#holds(grant)) return -1;
    this.#options.counters.directReads += 1;
    return got;
  }

  /** The same, also where the disk must be waited for. False: ask otherwise. */
  async read(slab: Slab, start: number, length: number, offset: number, leastLsn: number): Promise<boolean> {
    const grant = this.#newEnough(leastLsn);
    if (grant === null) return false;
    try {
      await grant.image.read(slab, start, length, offset);
    } catch {
      this.#drop(grant);
      return false;
    }
    if (this.#grant !== grant || !this.#holds(grant)) return false;
    this.#options.counters.directReads += 1;
    return true;
  }

  close(): void {
    this.#closed = true;
    if (this.#grant !== null) this.#drop(this.#grant);
  }

  #newEnough(leastLsn: number): OpenGrant | null {
    const grant = this.#grant;
    if (grant === null) return null;
    // While one grant holds, the image only goes forward.
    if (this.#appliedLsn < leastLsn && !this.#holds(grant)) return null;
    return this.#appliedLsn < leastLsn ? null : grant;
  }

  /** Reads the note: still this grant's? Ends it where it is another's. */
  #holds(grant: OpenGrant): boolean {
    const { noteSlab, warmSlab } = this.#options.files;
    const note = noteSlab.bytes.subarray(0, readGrantBytes);
    let got: number;
    try {
      got = grant.note.readInline(noteSlab, 0, readGrantBytes, 0);
    } catch {
      got = 0;
    }
    if (got === readGrantBytes && note.equals(this.#known)) return true;
    if (got === -1) {
      // Its page was given up by the system: it comes back, this read goes the other way.
      grant.note.read(warmSlab, 0, readGrantBytes, 0).catch(() => undefined);
      return false;
    }
    const found = decodeReadGrant(note);
    if (got === readGrantBytes && isBadReadGrant(found)) return false; // being written at this moment
    if (isBadReadGrant(found) || found.token !== grant.token) {
      this.#drop(grant);
      return false;
    }
    note.copy(this.#known);
    this.#appliedLsn = found.appliedLsn;
    return true;
  }

  async #ask(): Promise<void> {
    const { bus, subject, files, onEpoch } = this.#options;
    const { store, warmSlab } = files;
    const decoded = decodeMessage(await bus.request(subject, encodeMessage({ type: "grant" }), answerMs));
    if (isBadMessage(decoded) || decoded.message.type !== "granted") return;
    const { imagePath, token, epoch } = decoded.message;
    onEpoch(epoch);
    const readOnly = { readOnly: true, access: "buffered" } as const;
    const image = await store.open(imagePath, readOnly);
    let note: ReadFile;
    try {
      note = await store.open(readGrantPathOf(imagePath), readOnly);
    } catch (cause) {
      await image.close();
      throw cause;
    }
    // Its page comes into memory here; from now on it is looked at inline.
    await note.read(warmSlab, 0, readGrantBytes, 0).catch(() => undefined);
    const grant = { image, note, token };
    this.#grant = grant;
    this.#known.fill(0);
    this.#appliedLsn = 0;
    if (this.#closed || !this.#holds(grant)) this.#drop(grant);
  }

  /** Reads under way on other threads are waited for by the files themselves. */
  #drop(grant: OpenGrant): void {
    if (this.#grant !== grant) return;
    this.#grant = null;
    for (const file of [grant.image, grant.note]) file.close().catch(() => undefined); // it was only read
  }
}
