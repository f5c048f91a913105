/*
 * The embedded file log: one volume's WriteLog in a folder of segment files. open() fences the older writer, recovers, repairs
 * and appends the epoch entry; the volume host builds one per volume and hands its writer to the volume session. The order of
 * steps is docs/specs/embedded-log.md, "Recovery"; the work is in recovery-*.ts and embedded-writer.ts.
 */
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { entryKind } from "#shared/domain/entry.ts";
import { limits } from "#shared/domain/limits.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { LogOpenOptions, WriteLog } from "#shared/ports/write-log.ts";
import { EmbeddedLogWriter } from "./embedded-writer.ts";
import { nextEpoch } from "./log-errors.ts";
import { type EmbeddedLogParts, type LogSetup, logSetup } from "./log-options.ts";
import { openSegments, repairLog } from "./recovery-repair.ts";
import { type FoundLog, scanLog } from "./recovery-scan.ts";
import { ScanMemory } from "./scan-memory.ts";
import type { SegmentSet } from "./segment-set.ts";

/** Zeroed before a new log is handed out; the rest follows in the background. */
const preparedAtOpenBytes = 1024 * 1024;

/** The writer of each folder in this process, so that a newer open fences it, whoever built the objects. */
const writers = new WeakMap<FileStore, Map<string, Tenure>>();

interface Tenure {
  /** The open under way, or the last one. */
  opening: Promise<unknown>;
  writer: EmbeddedLogWriter | null;
}

export class EmbeddedFileLog implements WriteLog {
  readonly #setup: LogSetup;
  readonly #memory: ScanMemory;
  readonly #epochSlab: Slab;
  #writer: EmbeddedLogWriter | null = null;

  constructor(parts: EmbeddedLogParts) {
    this.#setup = logSetup(parts);
    this.#memory = new ScanMemory(parts.store);
    this.#epochSlab = parts.store.allocateSlab(2 * limits.blockBytes);
  }

  async open(options: LogOpenOptions): Promise<EmbeddedLogWriter> {
    const tenure = this.#tenure();
    const opening = tenure.opening.then(() => this.#openInTurn(tenure, options));
    tenure.opening = opening.catch(() => undefined);
    return opening;
  }

  async close(): Promise<void> {
    await this.#tenure().opening;
    await this.#writer?.close();
  }

  #tenure(): Tenure {
    const { store, directory } = this.#setup;
    let ofStore = writers.get(store);
    if (ofStore === undefined) {
      ofStore = new Map();
      writers.set(store, ofStore);
    }
    let tenure = ofStore.get(directory);
    if (tenure === undefined) {
      tenure = { opening: Promise.resolve(), writer: null };
      ofStore.set(directory, tenure);
    }
    return tenure;
  }

  async #openInTurn(tenure: Tenure, options: LogOpenOptions): Promise<EmbeddedLogWriter> {
    if (tenure.writer !== null) nextEpoch(this.#setup.directory, tenure.writer.epoch, options.epoch);
    await tenure.writer?.fence();
    tenure.writer = null;
    const { set, found, epoch } = await this.#recover(options);
    const writer = new EmbeddedLogWriter(
      this.#setup,
      set,
      this.#memory,
      {
        line: found.line ?? this.#setup.random.hex(8),
        epoch,
        lastLsn: found.lastLsn,
        chain: found.chain,
      },
      options.durability,
    );
    try {
      await this.#beginTenure(writer, set, options.writer);
    } catch (cause) {
      await writer.close();
      throw cause;
    }
    tenure.writer = writer;
    this.#writer = writer;
    writer.handOver(options.listener);
    return writer;
  }

  async #recover(options: LogOpenOptions): Promise<{ set: SegmentSet; found: FoundLog; epoch: number }> {
    const { store, directory, volumeId } = this.#setup;
    await store.makeDirectory(directory);
    const memory = this.#memory;
    const { knownLsn, begin } = options;
    const found = await scanLog({
      store,
      directory,
      volumeId,
      knownLsn,
      memory,
      ...(begin === undefined ? {} : { begin }),
    });
    const epoch = nextEpoch(directory, found.epoch, options.epoch);
    await repairLog(this.#setup, found, memory);
    const access = options.durability === "write" ? "direct" : "buffered";
    return { set: await openSegments(this.#setup, found, access), found, epoch };
  }

  /** Room for the next segment, some prepared blocks, and the epoch entry, durable. */
  async #beginTenure(writer: EmbeddedLogWriter, set: SegmentSet, who: string): Promise<void> {
    // A full disk or a full log can still be opened, read and released: state().refusal says so.
    if (set.untouchedAhead === 0) await writer.supply.secure().catch(() => undefined);
    await writer.supply.prepareCurrent(preparedAtOpenBytes);
    const draft = new BatchDraft(this.#epochSlab);
    draft.addValue(entryKind.epoch, who);
    writer.appendEpoch(draft);
    await writer.sync();
  }
}
