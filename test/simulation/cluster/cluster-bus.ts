/*
 * Core NATS between the processes of a simulated cluster: at most once, in order per sender; messages are lost, doubled, or can't get
 * from one of two processes to the other. One SimulatedSubjects for the servers, one SimulatedBus for each process.
 */
import { asReceived } from "#shared/adapters/message-bus/memory.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { Handler, MessageBus, Subscription } from "#shared/ports/message-bus.ts";
import type { SimulatedNats } from "./cluster-nats.ts";
import { servers } from "./cluster-network.ts";
import type { SimulatedProcess } from "./cluster-process.ts";

interface Listener {
  readonly process: SimulatedProcess;
  readonly pattern: RegExp;
  readonly listener: (data: Uint8Array, subject: string) => void;
}

export class SimulatedSubjects {
  readonly listeners = new Set<Listener>();
  readonly handlers = new Map<string, { readonly process: SimulatedProcess; readonly handler: Handler }>();
  /** Ordered pairs between which nothing gets through, `from>to`, though both reach the servers. */
  readonly parted = new Set<string>();

  /** The connection of a process that is gone breaks. */
  forget(process: SimulatedProcess): void {
    for (const one of this.listeners) if (one.process === process) this.listeners.delete(one);
    for (const [subject, one] of this.handlers) if (one.process === process) this.handlers.delete(subject);
  }
}

export class SimulatedBus implements MessageBus {
  private readonly nats: SimulatedNats;
  private readonly subjects: SimulatedSubjects;
  private readonly process: SimulatedProcess;

  constructor(nats: SimulatedNats, subjects: SimulatedSubjects, process: SimulatedProcess) {
    this.nats = nats;
    this.subjects = subjects;
    this.process = process;
  }

  publish(subject: string, data: Uint8Array): void {
    const copy = Uint8Array.from(data);
    const { nats, process } = this;
    const times = nats.random.chance(nats.habits.busDuplicateChance) ? 2 : 1;
    for (let time = 0; time < times; time++) {
      nats.network.send(process.name, servers, () => {
        for (const { process: to, pattern, listener } of this.subjects.listeners) {
          if (pattern.test(subject) && !this.isLost(process, to)) {
            this.forward(to, () => listener(Uint8Array.from(copy), subject));
          }
        }
      });
    }
  }

  request(subject: string, data: Uint8Array, timeoutMs: number): Promise<Uint8Array> {
    const copy = Uint8Array.from(data);
    const { nats, process } = this;
    return new Promise((resolve, reject) => {
      const timer = process.clock.after(timeoutMs, () => reject(failed("BusNoAnswer", subject)));
      const answer = (settle: () => void): void =>
        this.forward(process, () => {
          timer.cancel();
          settle();
        });
      nats.network.send(process.name, servers, () => {
        const served = this.subjects.handlers.get(subject);
        if (served === undefined) {
          answer(() => reject(failed("BusNobody", subject)));
          return;
        }
        if (this.isLost(process, served.process)) return;
        this.forward(served.process, () => {
          Promise.resolve(served.handler(Uint8Array.from(copy)))
            .catch(() => null)
            .then((given) => {
              if (given === null || this.isLost(served.process, process)) return;
              const bytes = asReceived(given);
              nats.network.send(served.process.name, servers, () => answer(() => resolve(bytes)));
            })
            .catch((cause: unknown) => reject(cause as Error));
        });
      });
    });
  }

  subscribe(subject: string, listener: (data: Uint8Array, subject: string) => void): Subscription {
    const parts = subject.split(".").map((part) => (part === "*" ? "[^.]+" : part));
    const one = { process: this.process, pattern: new RegExp(`^${parts.join("\\.")}$`), listener };
    this.subjects.listeners.add(one);
    return { close: () => void this.subjects.listeners.delete(one) };
  }

  serve(subject: string, handler: Handler): Subscription {
    const one = { process: this.process, handler };
    this.subjects.handlers.set(subject, one);
    return {
      close: () => {
        if (this.subjects.handlers.get(subject) === one) this.subjects.handlers.delete(subject);
      },
    };
  }

  private forward(to: SimulatedProcess, run: () => void): void {
    this.nats.network.send(servers, to.name, () => to.take(run));
  }

  private isLost(from: SimulatedProcess, to: SimulatedProcess): boolean {
    const isParted = this.subjects.parted.has(`${from.name}>${to.name}`);
    return isParted || this.nats.random.chance(this.nats.habits.busLossChance);
  }
}

function failed(tag: string, subject: string): VarveError {
  return new VarveError(tag, "Retry", `${subject}: ${tag}`);
}
