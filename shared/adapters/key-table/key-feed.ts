/*
 * All changes of one KV bucket as one process hears them: a single watch for all who listen, begun again when it broke. A watch is a
 * consumer at the server, which keeps it for minutes after its process is gone and has a limit of them. Called by jetstream-kv.ts.
 */
import type { KV, KvEntry } from "@nats-io/kv";
import type { Clock } from "#shared/ports/clock.ts";

export interface FeedListener {
  /** From now on every change is told; what is there already is told too, sooner or later. */
  begun(): void;
  entry(entry: KvEntry): void;
  /** The watch did not begin, or broke: it is begun again. */
  failed(cause: unknown): void;
}

type Entries = Awaited<ReturnType<KV["watch"]>>;

const againMs = 500;

export class KeyFeed {
  readonly #kv: KV;
  readonly #clock: Clock;
  readonly #listeners = new Set<FeedListener>();
  /** The watch that is heard; null while there is none. */
  #entries: Entries | null = null;
  #isRunning = false;

  constructor(kv: KV, clock: Clock) {
    this.#kv = kv;
    this.#clock = clock;
  }

  add(listener: FeedListener): void {
    this.#listeners.add(listener);
    if (this.#entries !== null) listener.begun();
    if (this.#isRunning) return;
    this.#isRunning = true;
    void this.#run();
  }

  /** With the last listener the watch ends. */
  remove(listener: FeedListener): void {
    this.#listeners.delete(listener);
    if (this.#listeners.size > 0) return;
    this.#entries?.stop();
    this.#entries = null;
  }

  async #run(): Promise<void> {
    while (this.#listeners.size > 0) {
      const isBroken = await this.#watch().catch((cause: unknown) => {
        for (const listener of this.#listeners) listener.failed(cause);
        return true;
      });
      if (!isBroken) continue;
      await new Promise<void>((resolve) => {
        this.#clock.after(againMs, resolve);
      });
    }
    this.#isRunning = false;
  }

  /** False: it ended because nobody listened any more. */
  async #watch(): Promise<boolean> {
    const entries = await this.#kv.watch();
    if (this.#listeners.size === 0) {
      entries.stop();
      return false;
    }
    this.#entries = entries;
    try {
      for (const listener of this.#listeners) listener.begun();
      for await (const entry of entries) {
        for (const listener of this.#listeners) listener.entry(entry);
      }
      return this.#entries === entries;
    } finally {
      if (this.#entries === entries) this.#entries = null;
    }
  }
}
