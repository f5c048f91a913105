/*
 * The log as `image adopt` and `image discard` use it: opened without a volume session, appended to one draft at a time,
 * each durable before the next. Owns the waiting for log room. Called by image-adopt.ts and image-discard.ts.
 */
import type { BatchDraft } from "#shared/domain/batch-draft.ts";
import { toVarveError, type VarveError } from "#shared/domain/errors.ts";
import type { LogWriter, WriteLog } from "#shared/ports/write-log.ts";

export class RepairLog {
  readonly writer: LogWriter;
  readonly #log: WriteLog;
  readonly #events: LogEvents;

  private constructor(log: WriteLog, writer: LogWriter, events: LogEvents) {
    this.#log = log;
    this.writer = writer;
    this.#events = events;
  }

  /** Recovers and fences the log, as a session does. `knownLsn`: what the image's checkpoint is known to hold. */
  static async open(log: WriteLog, purpose: string, knownLsn: number): Promise<RepairLog> {
    const events = new LogEvents();
    const writer = await log.open({ writer: purpose, durability: "write", knownLsn, listener: events });
    return new RepairLog(log, writer, events);
  }

  /**
   * Appends and waits until the batch is durable. Where the log is full, everything before the batch is let go: whoever
   * appends here rewrites the disk as a whole, so the entries before say nothing that is still wanted.
   */
  async append(draft: BatchDraft): Promise<void> {
    let released = false;
    for (;;) {
      const room = this.#events.nextRoom();
      try {
        this.writer.append(draft);
        break;
      } catch (cause) {
        const error = toVarveError(cause, "append to the log");
        if (error.kind === "Full" && !released) {
          released = true;
          await this.writer.release(this.writer.state().durableLsn + 1);
        } else if (error.kind === "Retry") await room;
        else throw error;
      }
    }
    this.writer.pump(false);
    await this.writer.sync();
  }

  async close(): Promise<void> {
    try {
      await this.writer.close();
    } finally {
      await this.#log.close();
    }
  }
}

/** Nobody here waits for single entries; only for room, or the end. */
class LogEvents {
  #waiting: (() => void)[] = [];

  stored(_lsn: number): void {}

  durable(_lsn: number): void {}

  halted(_error: VarveError): void {
    this.room();
  }

  room(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  nextRoom(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
    });
  }
}
