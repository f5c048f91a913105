/*
 * A key table as one process of a simulated cluster uses it: the port over cluster-nats.ts. Reads may be answered by a server that is
 * behind; a watch is cut off with its process and catches up behind.
 */
import { VarveError } from "#shared/domain/errors.ts";
import type { KeyRow, KeyTable, KeyWatch, KeyWatcher } from "#shared/ports/key-table.ts";
import type { SimulatedNats } from "./cluster-nats.ts";
import { servers } from "./cluster-network.ts";
import type { SimulatedProcess } from "./cluster-process.ts";

const answerMs = 1000;
const watchAgainMs = 500;

export class SimulatedKeys implements KeyTable {
  private readonly nats: SimulatedNats;
  private readonly process: SimulatedProcess;
  private readonly bucket: string;

  constructor(nats: SimulatedNats, process: SimulatedProcess, bucket: string) {
    this.nats = nats;
    this.process = process;
    this.bucket = bucket;
  }

  async get(key: string): Promise<KeyRow | null> {
    const { nats, process } = this;
    const found = await this.ask(false, () => {
      const behindMs = nats.lagMs.get(process.name) ?? (nats.random.chance(0.02) ? 300 : 0);
      return { row: nats.table(this.bucket).get(key, nats.scheduler.nowMs - behindMs) };
    });
    return found.row;
  }

  async put(key: string, value: Uint8Array, expected: number): Promise<number | null> {
    const copy = Uint8Array.from(value);
    return await this.change(key, copy, expected);
  }

  async remove(key: string, expected: number): Promise<boolean> {
    return (await this.change(key, null, expected)) !== null;
  }

  watch(prefix: string, watcher: KeyWatcher): KeyWatch {
    const { nats, process } = this;
    const table = nats.table(this.bucket);
    const told = new Map<string, number>();
    let open = true;
    let caughtUp = false;
    let complete = false;
    const tell = (row: KeyRow): void => {
      if (!open || !row.key.startsWith(prefix) || row.revision <= (told.get(row.key) ?? 0)) return;
      told.set(row.key, row.revision);
      watcher.row(row);
    };
    const send = (row: KeyRow): void => {
      nats.network.send(servers, process.name, () => process.take(() => tell(row)));
      // Whatever is lost is told when the watch is begun again.
      if (nats.network.isCut(servers, process.name)) complete = false;
    };
    table.listeners.add(send);
    const begin = (): void => {
      if (!open || !process.alive) {
        table.listeners.delete(send);
        return;
      }
      if (!complete) this.beginWatch(table.newest.bind(table), tell, finish);
      process.clock.after(watchAgainMs, begin);
    };
    const finish = (): void => {
      complete = true;
      if (!caughtUp && open) watcher.caughtUp();
      caughtUp = true;
    };
    begin();
    return {
      close: () => {
        open = false;
        table.listeners.delete(send);
      },
    };
  }

  private beginWatch(newest: () => readonly KeyRow[], tell: (row: KeyRow) => void, finish: () => void): void {
    this.ask(false, () => newest()).then(
      (rows) => {
        for (const row of rows) tell(row);
        finish();
      },
      () => undefined, // begun again later
    );
  }

  private async change(key: string, value: Uint8Array | null, expected: number): Promise<number | null> {
    const { revision } = await this.ask(true, () => ({
      revision: this.nats.table(this.bucket).set(key, value, expected),
    }));
    return revision;
  }

  private async ask<T>(changes: boolean, work: () => T): Promise<T> {
    try {
      return await this.nats.call(this.process, { changes, timeoutMs: answerMs }, () =>
        changes || this.nats.hasLeader || this.nats.random.chance(0.5) ? work() : null,
      );
    } catch (cause) {
      throw new VarveError("KeyTableAway", "Retry", "the key table did not answer", { cause });
    }
  }
}
