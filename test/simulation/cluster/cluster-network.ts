/*
 * The network between the parties of a simulated cluster: processes, clients, and the NATS servers as one. Each direction of each
 * pair keeps its order, may be slow, and may be cut: what is sent meanwhile is lost (the connection broke) or comes when it is healed (TCP
 * held out). Used by cluster-nats.ts, cluster-bus.ts and the clients.
 */
import type { Scheduler, SeededRandom } from "../scheduler.ts";

/** The party that all NATS servers together are. */
export const servers = "nats";
/** The server that leads, as a writer reaches it by a connection of its own. */
export const leader = "nats-leader";

interface Link {
  /** When the last message arrives: none overtakes it. */
  lastMs: number;
  cut: "lose" | "hold" | null;
  slowMs: number;
  held: (() => void)[];
}

export class SimulatedNetwork {
  private readonly scheduler: Scheduler;
  private readonly random: SeededRandom;
  private readonly links = new Map<string, Link>();

  constructor(scheduler: Scheduler, random: SeededRandom) {
    this.scheduler = scheduler;
    this.random = random;
  }

  send(from: string, to: string, arrive: () => void): void {
    const link = this.link(from, to);
    if (link.cut === "lose") return;
    if (link.cut === "hold") {
      link.held.push(arrive);
      return;
    }
    this.deliver(link, arrive);
  }

  /** From now on nothing gets from one to the other. */
  cut(from: string, to: string, how: "lose" | "hold"): void {
    this.link(from, to).cut = how;
  }

  slow(from: string, to: string, ms: number): void {
    this.link(from, to).slowMs = ms;
  }

  heal(from: string, to: string): void {
    const link = this.link(from, to);
    link.cut = null;
    link.slowMs = 0;
    for (const arrive of link.held.splice(0)) this.deliver(link, arrive);
  }

  healAll(): void {
    for (const name of this.links.keys()) {
      const [from = "", to = ""] = name.split(">");
      this.heal(from, to);
    }
  }

  isCut(from: string, to: string): boolean {
    return this.link(from, to).cut !== null;
  }

  private deliver(link: Link, arrive: () => void): void {
    const hesitates = this.random.chance(0.01) ? 30 : 0;
    const latencyMs = 0.05 + this.random.next() * (0.6 + link.slowMs + hesitates);
    link.lastMs = Math.max(link.lastMs, this.scheduler.nowMs + latencyMs);
    this.scheduler.after(link.lastMs - this.scheduler.nowMs, arrive);
  }

  private link(from: string, to: string): Link {
    const name = `${from}>${to}`;
    let link = this.links.get(name);
    if (link === undefined) {
      link = { lastMs: 0, cut: null, slowMs: 0, held: [] };
      this.links.set(name, link);
    }
    return link;
  }
}
