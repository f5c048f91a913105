/*
 * The NATS servers of a simulated cluster: leaders that come and go, quorums that are lost, an old leader that still answers some, requests
 * that arrive late, answers that never do. Holds the streams (stream-server.ts) and key tables (key-server.ts); every request of a
 * process comes through call(). The semantics are docs/specs/jetstream-log.md.
 */
import { apiError } from "#shared/adapters/write-log/jetstream-errors.ts";
import type { Scheduler, SeededRandom } from "../scheduler.ts";
import { type SimulatedNetwork, servers } from "./cluster-network.ts";
import type { SimulatedProcess } from "./cluster-process.ts";
import { KeyServer } from "./key-server.ts";
import type { LogTruth } from "./log-truth.ts";
import { StreamServer, type StreamState } from "./stream-server.ts";

/** No answer came: it may have happened, now or later. */
export class NoAnswer extends Error {}
/** The servers say that nobody serves the subject. */
export class NoResponder extends Error {}

export interface Ask {
  /** It changes something: an old leader can't do it alone. */
  readonly changes: boolean;
  readonly timeoutMs: number;
  /** Which connection it takes. */
  readonly via?: string;
}

/** How the servers behave now; the events of a seed change it. */
export interface ServerHabits {
  /** Of requests that change something: how many arrive seconds later, behind others. */
  lateChance: number;
  /** Of answers: how many are lost although all was done. */
  lostAnswerChance: number;
  busLossChance: number;
  busDuplicateChance: number;
  redeliveryChance: number;
}

export const calmHabits: Readonly<ServerHabits> = {
  lateChance: 0,
  lostAnswerChance: 0,
  busLossChance: 0,
  busDuplicateChance: 0,
  redeliveryChance: 0,
};

interface OldSide {
  readonly endMs: number;
  readonly streams: ReadonlyMap<string, StreamState>;
}

export class SimulatedNats {
  readonly scheduler: Scheduler;
  readonly network: SimulatedNetwork;
  readonly random: SeededRandom;
  readonly habits: ServerHabits = { ...calmHabits };
  /** Counts leaders: consumers of an older one may be gone. */
  generation = 0;
  /** Consumers of these processes see messages so much later. */
  readonly lagMs = new Map<string, number>();
  readonly streams = new Map<string, StreamServer>();
  readonly tables = new Map<string, KeyServer>();
  private leaderlessUntilMs = 0;
  private quorumLost = false;
  /** Processes that still talk to the leader before. */
  private readonly oldSides = new Map<string, OldSide>();
  private ackMs = 0;
  private readonly truthOf: (stream: string) => LogTruth;

  constructor(
    scheduler: Scheduler,
    network: SimulatedNetwork,
    random: SeededRandom,
    truthOf: (stream: string) => LogTruth,
  ) {
    this.scheduler = scheduler;
    this.network = network;
    this.random = random;
    this.truthOf = truthOf;
  }

  table(bucket: string): KeyServer {
    let table = this.tables.get(bucket);
    if (table === undefined) {
      table = new KeyServer(() => this.scheduler.nowMs);
      this.tables.set(bucket, table);
    }
    return table;
  }

  /** The stream as it is; made where it is missing, which `exists` tells. */
  stream(name: string): StreamServer {
    let stream = this.streams.get(name);
    if (stream === undefined) {
      stream = new StreamServer(() => this.scheduler.nowMs, this.truthOf(name));
      this.streams.set(name, stream);
    }
    return stream;
  }

  get hasLeader(): boolean {
    return !this.quorumLost && this.scheduler.nowMs >= this.leaderlessUntilMs;
  }

  /** The leader is gone; the next one comes after `ms`. The processes named still reach the old one for a while, for reads. */
  changeLeader(ms: number, oldSide: readonly string[], oldSideMs: number): void {
    this.generation += 1;
    this.leaderlessUntilMs = Math.max(this.leaderlessUntilMs, this.scheduler.nowMs + ms);
    const streams = new Map([...this.streams].map(([name, stream]) => [name, stream.state()]));
    for (const name of oldSide) {
      this.oldSides.set(name, { endMs: this.scheduler.nowMs + oldSideMs, streams });
    }
  }

  loseQuorum(oldSide: readonly string[], oldSideMs: number): void {
    this.changeLeader(0, oldSide, oldSideMs);
    this.quorumLost = true;
  }

  quorumIsBack(electionMs: number): void {
    if (!this.quorumLost) return;
    this.quorumLost = false;
    this.changeLeader(electionMs, [], 0);
  }

  heal(): void {
    this.quorumIsBack(0);
    this.leaderlessUntilMs = 0;
    this.oldSides.clear();
    this.lagMs.clear();
    Object.assign(this.habits, calmHabits);
  }

  /** What the process sees of a stream through the leader that it reaches; null: none answers it. */
  seenStream(process: SimulatedProcess, name: string): StreamState | null {
    const old = this.oldSideOf(process);
    if (old !== null) return old.streams.get(name) ?? null;
    return this.hasLeader ? this.stream(name).state() : null;
  }

  /**
   * A request of a process. `work` runs at the servers, at once or late, or never; it returns the answer, throws one, or null:
   * nobody answers. Rejects NoAnswer after the time limit.
   */
  call<T>(
    process: SimulatedProcess,
    { changes, timeoutMs, via = servers }: Ask,
    work: () => T | null,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const timer = process.clock.after(timeoutMs, () => reject(new NoAnswer("no answer in time")));
      const answer = (settle: () => void): void => {
        if (this.random.chance(this.habits.lostAnswerChance)) return;
        this.network.send(via, process.name, () =>
          process.take(() => {
            timer.cancel();
            settle();
          }),
        );
      };
      const serve = (): void => {
        if (changes && this.mayDelay(process, serve)) return;
        let done: T | null;
        try {
          done = work();
        } catch (cause) {
          answer(() => reject(cause));
          return;
        }
        if (done === null) return;
        const value = done;
        // Answers to changes come when a quorum has synced, in their order.
        if (changes) this.whenSynced(() => answer(() => resolve(value)));
        else answer(() => resolve(value));
      };
      if (changes && this.random.chance(this.habits.lateChance)) {
        this.scheduler.after(this.random.next() * 8000, serve);
      } else this.network.send(process.name, via, serve);
    });
  }

  /** True: it can't be done now. Some of what reaches servers without a leader is carried out by the next one. */
  private mayDelay(process: SimulatedProcess, serve: () => void): boolean {
    if (this.hasLeader && this.oldSideOf(process) === null) return false;
    if (this.random.chance(0.2)) this.scheduler.after(200 + this.random.next() * 6000, serve);
    return true;
  }

  private whenSynced(run: () => void): void {
    const nowMs = this.scheduler.nowMs;
    this.ackMs = Math.max(this.ackMs, nowMs + 0.3 + this.random.next() * 2);
    const { generation } = this;
    this.scheduler.after(this.ackMs - nowMs, () => {
      // The leader that would have answered is gone.
      if (this.generation === generation) run();
    });
  }

  private oldSideOf(process: SimulatedProcess): OldSide | null {
    const old = this.oldSides.get(process.name);
    if (old === undefined) return null;
    if (old.endMs > this.scheduler.nowMs) return old;
    this.oldSides.delete(process.name);
    return null;
  }
}

/** As the real adapter says it. */
export function awayError(stream: string, operation: string, cause: unknown): Error {
  return apiError(stream, operation, cause);
}
