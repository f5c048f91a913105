/*
 * A key table as a JetStream KV bucket: file storage, history 1. The compare-and-set is the server's own (expected last sequence
 * of a subject), so two machines can't both win. Made by the layers of cluster processes; used through ports/key-table.ts.
 */
import { JetStreamApiError, JetStreamError, jetstream } from "@nats-io/jetstream";
import { type KV, type KvEntry, Kvm } from "@nats-io/kv";
import type { NatsConnection } from "@nats-io/transport-node";
import { VarveError } from "#shared/domain/errors.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { KeyRow, KeyTable, KeyWatch, KeyWatcher } from "#shared/ports/key-table.ts";

export interface KeyTableOptions {
  readonly connection: NatsConnection;
  readonly clock: Clock;
  /** Letters, digits, '_' and '-'. */
  readonly bucket: string;
  /** Servers that keep it: 1 or 3. Only for a bucket that is made now. */
  readonly replicas: number;
}

/** A request that has no answer by then is asked again, or failed, by whoever asked. */
const answerMs = 1000;
const watchAgainMs = 500;
/** JetStream's code for a compare-and-set that lost: wrong last sequence (of R1 and of replicated streams). */
const lostCodes: readonly number[] = [10071, 10164];

export class JetStreamKeyTable implements KeyTable {
  readonly #kv: KV;
  readonly #clock: Clock;
  readonly #bucket: string;

  private constructor(kv: KV, { clock, bucket }: KeyTableOptions) {
    this.#kv = kv;
    this.#clock = clock;
    this.#bucket = bucket;
  }

  /** Makes the bucket where it is missing. Rejects Retry while JetStream is away. */
  static async open(options: KeyTableOptions): Promise<JetStreamKeyTable> {
    const { connection, bucket, replicas } = options;
    try {
      const kv = await new Kvm(jetstream(connection, { timeout: answerMs })).create(bucket, {
        replicas,
        history: 1,
      });
      return new JetStreamKeyTable(kv, options);
    } catch (cause) {
      throw away("open", bucket, cause);
    }
  }

  async get(key: string): Promise<KeyRow | null> {
    try {
      const entry = await this.#kv.get(key);
      return entry === null || entry.operation !== "PUT" ? null : rowOf(entry);
    } catch (cause) {
      throw away("get", `${this.#bucket} ${key}`, cause);
    }
  }

  async put(key: string, value: Uint8Array, expected: number): Promise<number | null> {
    try {
      return expected === 0
        ? await this.#kv.create(key, value)
        : await this.#kv.update(key, value, expected, answerMs);
    } catch (cause) {
      if (isLost(cause)) return null;
      throw away("put", `${this.#bucket} ${key}`, cause);
    }
  }

  async remove(key: string, expected: number): Promise<boolean> {
    try {
      await this.#kv.delete(key, { previousSeq: expected });
      return true;
    } catch (cause) {
      if (isLost(cause)) return false;
      throw away("remove", `${this.#bucket} ${key}`, cause);
    }
  }

  watch(prefix: string, watcher: KeyWatcher): KeyWatch {
    let stop: (() => void) | null = null;
    let open = true;
    let caughtUp = false;
    /** Revisions told, so that a watch that is begun again tells nothing older. */
    const told = new Map<string, number>();
    const tell = (row: KeyRow): void => {
      if (!open || !row.key.startsWith(prefix) || row.revision <= (told.get(row.key) ?? 0)) return;
      told.set(row.key, row.revision);
      watcher.row(row);
    };
    const run = async (): Promise<void> => {
      const entries = await this.#kv.watch();
      stop = () => entries.stop();
      if (!open) entries.stop();
      // An empty bucket says nothing: what is there now is asked for beside.
      const keys = caughtUp ? null : await this.#rows();
      for (const row of keys ?? []) tell(row);
      if (!caughtUp && open) {
        caughtUp = true;
        watcher.caughtUp();
      }
      for await (const entry of entries) tell(rowOf(entry));
    };
    const again = (): void => {
      if (!open) return;
      run()
        .catch(() => undefined) // away: begun again, and reads and writes say so to whoever asks
        .finally(() => this.#clock.after(watchAgainMs, again));
    };
    again();
    return {
      close: () => {
        open = false;
        stop?.();
      },
    };
  }

  async #rows(): Promise<readonly KeyRow[]> {
    const rows: KeyRow[] = [];
    for await (const key of await this.#kv.keys()) {
      const row = await this.get(key);
      if (row !== null) rows.push(row);
    }
    return rows;
  }
}

function rowOf(entry: KvEntry): KeyRow {
  return {
    key: entry.key,
    value: entry.operation === "PUT" ? entry.value : null,
    revision: entry.revision,
  };
}

function isLost(cause: unknown): boolean {
  if (cause instanceof JetStreamApiError) return lostCodes.includes(cause.code);
  return (
    cause instanceof JetStreamError &&
    cause.cause instanceof JetStreamApiError &&
    lostCodes.includes(cause.cause.code)
  );
}

function away(what: string, where: string, cause: unknown): VarveError {
  const message = cause instanceof Error ? cause.message : String(cause);
  return new VarveError("KeyTableAway", "Retry", `${what} ${where} in NATS: ${message}`, {
    hint: "Look whether the NATS servers run with JetStream, and whether this machine reaches them.",
    cause,
  });
}
