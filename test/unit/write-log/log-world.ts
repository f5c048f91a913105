// One embedded log on a simulated disk, with the record of what was appended and promised: the oracle of the crash tests.
// After each crash it checks that the log is a prefix of what was appended, holds all that was promised, byte for byte, and
// reads back as one chain. One seed gives one order of everything.
import { expect } from "vitest";
import { SimulatedDisk } from "#shared/adapters/file-store/simulated-disk.ts";
import { EmbeddedFileLog } from "#shared/adapters/write-log/embedded-file.ts";
import type { EmbeddedLogOptions } from "#shared/adapters/write-log/log-options.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import type { Durability, LogWriter } from "#shared/ports/write-log.ts";
import {
  expectWrite,
  type PlainBatch,
  plain,
  RecordingListener,
  writeDraft,
} from "../../contract/write-log-drafts.ts";
import { Scheduler, SeededRandom } from "../../simulation/scheduler.ts";

export const worldDirectory = "/data/log";
export const worldVolume = "5ca1ab1e00c0ffee";

export const smallLog: EmbeddedLogOptions = {
  segmentBytes: 64 * 1024,
  preparedAheadBytes: 32 * 1024,
  logBytesMax: 64 * 64 * 1024,
  retainedBytes: 0,
  sparesMax: 3,
  groupBytesMax: 48 * 1024,
  groupBatchesMax: 6,
  unsyncedBytesMax: 128 * 1024,
  unsyncedAgeMsMax: 20,
};

interface Appended {
  readonly firstLsn: number;
  /** 0: an epoch entry. */
  readonly seed: number;
  readonly length: number;
}

export class LogWorld {
  readonly random: SeededRandom;
  readonly scheduler: Scheduler;
  readonly disk: SimulatedDisk;
  readonly options: EmbeddedLogOptions;
  store: FileStore;
  log!: EmbeddedFileLog;
  writer!: LogWriter;
  listener = new RecordingListener();
  durability: Durability = "write";
  /** What was appended, in order; cut back to what a crash left. */
  appended: Appended[] = [];
  /** Greatest LSN that was ever told durable (or stored, for a kill). */
  durableLsn = 0;
  storedLsn = 0;
  releasedBefore = 1;
  line = "";
  #seed = 0;
  /** Opens since the oracle last knew the log exactly. */
  #opens = 0;

  constructor(seed: number, options: EmbeddedLogOptions = smallLog) {
    this.random = new SeededRandom(seed);
    this.scheduler = new Scheduler(this.random.fork());
    this.disk = new SimulatedDisk({ random: this.random.fork(), schedule: this.scheduler.schedule });
    this.store = this.disk.store();
    this.options = options;
  }

  build(store = this.store): EmbeddedFileLog {
    return new EmbeddedFileLog({
      store,
      clock: this.scheduler.clock,
      random: this.random,
      directory: worldDirectory,
      volumeId: worldVolume,
      options: this.options,
    });
  }

  /** Starts an open; the caller decides how long it runs. It may leave an epoch entry even if it is cut short. */
  startOpen(durability: Durability = this.durability, knownLsn = 0): Promise<LogWriter> {
    this.durability = durability;
    this.listener = new RecordingListener();
    this.log = this.build();
    this.#opens += 1;
    const { listener } = this;
    const opening = this.log.open({ writer: "test", durability, listener, knownLsn });
    opening.catch(() => undefined);
    return opening;
  }

  async open(durability: Durability = this.durability, knownLsn = 0): Promise<void> {
    this.writer = await this.scheduler.until(this.startOpen(durability, knownLsn), "open");
    await this.#checkOpened();
  }

  /** Appends one batch of a write; false where there is no room now. */
  append(length: number, mayBlock = false): boolean {
    this.#seed += 1;
    const draft = writeDraft((bytes) => this.store.allocateSlab(bytes), this.#seed, length);
    try {
      this.writer.append(draft);
    } catch (error) {
      expect(["Retry", "Full", "Internal"]).toContain((error as VarveError).kind);
      return false;
    }
    this.appended.push({ firstLsn: draft.firstLsn, seed: this.#seed, length });
    this.listener.inside = !mayBlock;
    this.writer.pump(mayBlock);
    this.listener.inside = false;
    return true;
  }

  async sync(): Promise<void> {
    await this.scheduler.until(this.writer.sync(), "sync");
    this.note();
  }

  async release(beforeLsn: number): Promise<void> {
    this.releasedBefore = Math.max(this.releasedBefore, beforeLsn);
    await this.scheduler.until(this.writer.release(beforeLsn), "release");
  }

  /** Remembers what was promised so far. */
  note(): void {
    this.durableLsn = Math.max(this.durableLsn, this.listener.durableLsn);
    this.storedLsn = Math.max(this.storedLsn, this.listener.storedLsn);
  }

  crash(): void {
    this.note();
    this.disk.crash();
    this.scheduler.reset();
    this.store = this.disk.store();
    // What was only stored may be gone now.
    this.storedLsn = this.durableLsn;
  }

  kill(): void {
    this.note();
    this.disk.kill();
    this.scheduler.reset();
    this.store = this.disk.store();
  }

  async read(fromLsn: number): Promise<PlainBatch[]> {
    const batches: PlainBatch[] = [];
    const reading = (async () => {
      for await (const batch of this.writer.read(fromLsn)) batches.push(plain(batch));
    })();
    await this.scheduler.until(reading, "read");
    return batches;
  }

  /** The log against the oracle. */
  async check(): Promise<void> {
    const { oldestLsn, storedLsn } = this.writer.state();
    expect(oldestLsn).toBeLessThanOrEqual(this.releasedBefore);
    const batches = await this.read(oldestLsn);
    const expected = this.appended.filter(({ firstLsn }) => firstLsn >= oldestLsn && firstLsn <= storedLsn);
    expect(batches.map((batch) => batch.firstLsn)).toEqual(expected.map(({ firstLsn }) => firstLsn));
    for (const [index, { seed, length }] of expected.entries()) {
      const batch = batches[index];
      if (seed === 0) expect(batch?.entries).toEqual([{ kind: "epoch", writer: "test" }]);
      else expectWrite(batch, seed, length);
    }
  }

  async #checkOpened(): Promise<void> {
    const state = this.writer.state();
    expect(state.durableLsn).toBe(state.lastLsn);
    // A kill keeps what was stored; a power cut what was durable.
    expect(state.lastLsn - 1).toBeGreaterThanOrEqual(Math.max(this.durableLsn, this.storedLsn));
    if (this.durableLsn > 0) expect(state.line).toBe(this.line);
    this.line = state.line;
    await this.#cutOracle(state.lastLsn);
    this.durableLsn = state.lastLsn;
    this.storedLsn = state.lastLsn;
    await this.check();
  }

  /** What the crash left of what was appended, then the epoch entries of opens that were cut short and of this one. */
  async #cutOracle(lastLsn: number): Promise<void> {
    const promised = Math.max(this.durableLsn, this.storedLsn);
    const epochs = (await this.read(this.writer.state().oldestLsn)).filter(
      (batch) => batch.entries[0]?.kind === "epoch" && batch.firstLsn > promised,
    );
    expect(epochs.length).toBeLessThanOrEqual(this.#opens);
    const firstEpoch = epochs[0]?.firstLsn ?? 0;
    expect(epochs.map((batch) => batch.firstLsn)).toEqual(
      Array.from({ length: lastLsn - firstEpoch + 1 }, (_, index) => firstEpoch + index),
    );
    expect(firstEpoch - 1).toBeLessThanOrEqual(this.appended.at(-1)?.firstLsn ?? 0);
    this.appended = this.appended.filter(({ firstLsn }) => firstLsn < firstEpoch);
    for (const { firstLsn } of epochs) this.appended.push({ firstLsn, seed: 0, length: 0 });
    this.#opens = 0;
  }
}
