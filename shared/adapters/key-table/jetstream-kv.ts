/*
 * A key table as a JetStream KV bucket: file storage, history 1. The compare-and-set is the server's own (expected last sequence
 * of a subject), so two machines can't both win. Made by the layers of cluster processes; used through ports/key-table.ts.
 */
import {
  JetStreamApiError,
  JetStreamError,
  type JetStreamManager,
  jetstream,
  jetstreamManager,
} from "@nats-io/jetstream";
import { type KV, type KvEntry, Kvm } from "@nats-io/kv";
import type { NatsConnection } from "@nats-io/transport-node";
import { VarveError } from "#shared/domain/errors.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { KeyRow, KeyTable, KeyWatch, KeyWatcher } from "#shared/ports/key-table.ts";
import { type FeedListener, KeyFeed } from "./key-feed.ts";

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
const readAgainMs = 500;
/** JetStream's code for a key that was never stored. */
const noMessageCode = 10037;
/** JetStream's code for a compare-and-set that lost: wrong last sequence (of R1 and of replicated streams). */
const lostCodes: readonly number[] = [10071, 10164];

export class JetStreamKeyTable implements KeyTable {
  readonly #kv: KV;
  readonly #manager: JetStreamManager;
  readonly #feed: KeyFeed;
  readonly #clock: Clock;
  readonly #bucket: string;
  #failure: VarveError | null = null;

  private constructor(kv: KV, manager: JetStreamManager, { clock, bucket }: KeyTableOptions) {
    this.#kv = kv;
    this.#manager = manager;
    this.#feed = new KeyFeed(kv, clock);
    this.#clock = clock;
    this.#bucket = bucket;
  }

  /** Why its watches hear nothing now; null while they do. */
  get failure(): VarveError | null {
    return this.#failure;
  }

  /** Makes the bucket where it is missing. Rejects Retry while JetStream is away. */
  static async open(options: KeyTableOptions): Promise<JetStreamKeyTable> {
    const { connection, bucket, replicas } = options;
    try {
      const kv = await new Kvm(jetstream(connection, { timeout: answerMs })).create(bucket, {
        replicas,
        history: 1,
      });
      const manager = await jetstreamManager(connection, { timeout: answerMs, checkAPI: false });
      return new JetStreamKeyTable(kv, manager, options);
    } catch (cause) {
      throw away("open", bucket, cause);
    }
  }

  async get(key: string): Promise<KeyRow | null> {
    const query = { last_by_subj: `$KV.${this.#bucket}.${key}` };
    try {
      // From the leader: the client's own get() asks any server that holds the bucket, also one that is behind.
      const message = await this.#manager.streams.getMessage(`KV_${this.#bucket}`, query);
      if (message === null || message.header.has("KV-Operation")) return null;
      return { key, value: message.data, revision: message.seq };
    } catch (cause) {
      if (cause instanceof JetStreamApiError && cause.code === noMessageCode) return null;
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
    let open = true;
    let caughtUp = false;
    let reading = false;
    /** Revisions told, so that a watch that is begun again tells nothing older. */
    const told = new Map<string, number>();
    const tell = (row: KeyRow): void => {
      if (!open || !row.key.startsWith(prefix) || row.revision <= (told.get(row.key) ?? 0)) return;
      told.set(row.key, row.revision);
      watcher.row(row);
    };
    // An empty bucket says nothing: what is there now is asked for beside, once changes are heard.
    const readRows = async (): Promise<void> => {
      if (!open || caughtUp || reading) return;
      reading = true;
      try {
        for (const row of await this.#rows(prefix)) tell(row);
        this.#failure = null;
        caughtUp = true;
        if (open) watcher.caughtUp();
      } catch (cause) {
        this.#failed(cause);
        this.#clock.after(readAgainMs, () => void readRows());
      } finally {
        reading = false;
      }
    };
    const listener: FeedListener = {
      begun: () => {
        if (caughtUp) this.#failure = null;
        void readRows();
      },
      entry: (entry) => tell(rowOf(entry)),
      failed: (cause) => this.#failed(cause),
    };
    this.#feed.add(listener);
    return {
      close: () => {
        open = false;
        this.#feed.remove(listener);
      },
    };
  }

  #failed(cause: unknown): void {
    this.#failure = cause instanceof VarveError ? cause : away("watch", this.#bucket, cause);
  }

  /** By the stream's own list of subjects: no consumer is made. */
  async #rows(prefix: string): Promise<readonly KeyRow[]> {
    const subjectStart = `$KV.${this.#bucket}.`;
    const info = await this.#manager.streams.info(`KV_${this.#bucket}`, {
      subjects_filter: `${subjectStart}>`,
    });
    const rows: KeyRow[] = [];
    for (const subject of Object.keys(info.state.subjects ?? {})) {
      const key = subject.slice(subjectStart.length);
      const row = key.startsWith(prefix) ? await this.get(key) : null;
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
