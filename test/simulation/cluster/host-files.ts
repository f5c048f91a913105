/*
 * The files of a storage node as a gateway on the same host sees them: the kernel's page cache, read only. It outlives the node's
 * process, and reads that wait for the disk take their bytes in two pieces, each at a time of its own, whether the gateway runs or is
 * paused meanwhile. Made by cluster-world.ts for each life of a gateway that has a node beside it.
 */
import type { SimulatedDisk } from "#shared/adapters/file-store/simulated-disk.ts";
import type { SimulatedInode } from "#shared/adapters/file-store/simulated-inode.ts";
import { FileStoreError } from "#shared/domain/errors.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { DirectFiles, ReadFile } from "../../../services/gateway/engine/direct-reads.ts";
import type { SeededRandom } from "../scheduler.ts";
import type { SimulatedProcess } from "./cluster-process.ts";

/** Chances that an inline read finds no page. */
const coldImage = 0.15;
const coldNote = 0.02;
const diskMs = 4;
const busyDiskMs = 250;
const busyChance = 0.15;

export interface HostFilesOptions {
  readonly disk: SimulatedDisk;
  readonly process: SimulatedProcess;
  readonly random: SeededRandom;
  /** Runs it at some simulated time, whatever the process does. */
  readonly later: (delayMs: number, run: () => void) => void;
  /** The gateway is about to read an image by itself. */
  readonly onImageRead: () => void;
}

export class HostFiles {
  private readonly options: HostFilesOptions;

  constructor(options: HostFilesOptions) {
    this.options = options;
  }

  readonly open: DirectFiles["store"]["open"] = async (path) => {
    const inode = this.options.disk.names.seen.files.get(path);
    if (inode === undefined) throw new FileStoreError("open", path, "ENOENT");
    return new HostFile(this.options, path, inode);
  };
}

class HostFile implements ReadFile {
  private readonly options: HostFilesOptions;
  private readonly path: string;
  private readonly inode: SimulatedInode;
  private closed = false;

  constructor(options: HostFilesOptions, path: string, inode: SimulatedInode) {
    this.options = options;
    this.path = path;
    this.inode = inode;
  }

  readInline(slab: Slab, start: number, length: number, offset: number): number {
    this.requireOpen();
    if (this.options.random.chance(this.isNote ? coldNote : coldImage)) return -1;
    const got = Math.max(0, Math.min(length, this.inode.cache.sizeBytes - offset));
    this.inode.cache.read(slab.bytes.subarray(start, start + got), offset);
    return got;
  }

  read(slab: Slab, start: number, length: number, offset: number): Promise<void> {
    this.requireOpen();
    const { later, process, random } = this.options;
    const half = Math.floor(length / 1024) * 512;
    const waitMs = random.chance(busyChance) ? busyDiskMs : diskMs;
    const copy = (from: number, to: number): void =>
      this.inode.cache.read(slab.bytes.subarray(start + from, start + to), offset + from);
    return new Promise((resolve) => {
      later(random.next() * waitMs, () => {
        copy(0, half);
        later(random.next() * waitMs, () => {
          copy(half, length);
          later(random.next() * waitMs, () => process.take(resolve));
        });
      });
    });
  }

  async close(): Promise<void> {
    this.closed = true;
  }

  private get isNote(): boolean {
    return this.path.endsWith(".grant");
  }

  private requireOpen(): void {
    if (this.closed) throw new FileStoreError("read", this.path, "EBADF");
    if (!this.isNote) this.options.onImageRead();
  }
}
