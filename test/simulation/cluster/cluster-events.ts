/*
 * What goes wrong in a round of the cluster world, how it begins and how it ends: processes killed, paused and stopped, power lost,
 * leaders changed, quorums lost, links cut and slow, messages lost and doubled. Called by cluster-run.ts.
 */
import { servers } from "./cluster-network.ts";
import type { ClusterWorld } from "./cluster-world.ts";

const kinds = {
  "kill gateway": 4,
  "pause gateway": 5,
  "stop gateway": 2,
  "kill node": 3,
  "power off node": 3,
  "pause node": 2,
  "stop node": 1,
  "change leader": 4,
  "lose quorum": 3,
  "cut from servers": 4,
  "cut one way": 4,
  "part two processes": 2,
  "cut client": 1,
  "slow link": 2,
  "hears late": 3,
  "late requests": 4,
  "lost answers": 3,
  "unreliable bus": 2,
  "server behind": 3,
  "clock jumps": 1,
} as const;

export type FaultKind = keyof typeof kinds;

export class ClusterEvents {
  private readonly world: ClusterWorld;

  constructor(world: ClusterWorld) {
    this.world = world;
  }

  /** One fault, at some time within `ms`, of a kind of chance's choice; it may last beyond. */
  plan(ms: number): void {
    const { world } = this;
    const kind = world.random.weighted(kinds);
    // This one takes its time.
    const latestMs = kind === "hears late" ? Math.min(ms, 2000) : ms;
    world.scheduler.after(world.random.next() * latestMs, () => {
      world.count(`fault: ${kind}`);
      this.begin(kind);
    });
  }

  /** Everything that is wrong ends; whoever is down comes back. */
  healAll(): void {
    const { world } = this;
    world.note("everything is healed");
    world.nats.heal();
    world.subjects.parted.clear();
    world.network.healAll();
    for (const { name, gateway } of world.gateways) {
      gateway?.process.resume();
      world.startGateway(name);
    }
    for (const { name, process } of world.nodes) {
      process?.resume();
      world.startNode(name);
    }
  }

  private begin(kind: FaultKind): void {
    switch (kind) {
      case "kill gateway":
      case "pause gateway":
      case "stop gateway":
        this.gatewayFault(kind);
        break;
      case "kill node":
      case "power off node":
      case "pause node":
      case "stop node":
        this.nodeFault(kind);
        break;
      case "change leader":
      case "lose quorum":
      case "late requests":
      case "lost answers":
      case "unreliable bus":
      case "server behind":
        this.serverFault(kind);
        break;
      case "cut from servers":
      case "cut one way":
      case "cut client":
      case "slow link":
      case "part two processes":
      case "hears late":
      case "clock jumps":
        this.linkFault(kind);
        break;
      default:
        throw new TypeError(kind satisfies never);
    }
  }

  private gatewayFault(kind: "kill gateway" | "pause gateway" | "stop gateway"): void {
    const { world } = this;
    const name = this.someGateway();
    const gateway = world.gateway(name);
    if (gateway === null || gateway.process.paused) return;
    if (kind === "pause gateway") {
      world.note(`${name} is paused`);
      gateway.process.pause();
      // The servers let go of a connection that takes nothing; the client library needs a while to notice.
      const loses = world.random.chance(0.5);
      if (loses) world.network.cut(servers, name, "lose");
      this.later(300, 14_000, () => {
        world.note(`${name} goes on`);
        gateway.process.resume();
        world.hurry(gateway);
        if (loses) this.later(0, 3000, () => world.network.heal(servers, name));
      });
      return;
    }
    const restart = (): void => this.later(20, 8000, () => world.startGateway(name));
    if (kind === "kill gateway") {
      world.killGateway(name);
      restart();
      return;
    }
    world.note(`${name} is stopped`);
    gateway
      .close()
      .catch((cause: unknown) => world.fail(`${name} did not stop`, cause))
      .finally(() => {
        if (world.gateway(name) !== gateway) return;
        world.killGateway(name);
        restart();
      });
  }

  private nodeFault(kind: "kill node" | "power off node" | "pause node" | "stop node"): void {
    const { world } = this;
    const { random } = world;
    const machine = random.pick(world.nodes);
    const { name, process, storage } = machine;
    if (process === null || storage === null || process.paused) return;
    const restart = (): void =>
      this.later(20, random.chance(0.4) ? 1000 : 12_000, () => world.startNode(name));
    if (kind === "pause node") {
      world.note(`${name} is paused`);
      process.pause();
      this.later(300, 12_000, () => {
        world.note(`${name} goes on`);
        process.resume();
      });
    } else if (kind === "stop node") {
      world.note(`${name} is stopped`);
      storage
        .close()
        .catch((cause: unknown) => world.fail(`${name} did not stop`, cause))
        .finally(() => {
          if (machine.storage !== storage) return;
          world.killNode(name, false);
          restart();
        });
    } else {
      world.killNode(name, kind === "power off node");
      restart();
      // Whoever was on that machine starts again, too.
      for (const gate of world.gatewayNames) this.later(20, 8000, () => world.startGateway(gate));
    }
  }

  private serverFault(kind: FaultKind): void {
    const { world } = this;
    const { nats, random } = world;
    const { habits } = nats;
    const oldSide = this.everybody().filter(() => random.chance(0.3));
    world.note(kind);
    if (kind === "change leader") {
      nats.changeLeader(random.next() * 5000, oldSide, random.next() * 5000);
    } else if (kind === "lose quorum") {
      nats.loseQuorum(oldSide, random.next() * 5000);
      this.later(500, random.chance(0.2) ? 45_000 : 10_000, () => nats.quorumIsBack(random.next() * 3000));
    } else if (kind === "late requests") {
      habits.lateChance = random.pick([0.02, 0.1]);
      this.later(1000, 15_000, () => (habits.lateChance = 0));
    } else if (kind === "lost answers") {
      habits.lostAnswerChance = random.pick([0.02, 0.2]);
      this.later(1000, 15_000, () => (habits.lostAnswerChance = 0));
    } else if (kind === "unreliable bus") {
      Object.assign(habits, { busLossChance: 0.1, busDuplicateChance: 0.1, redeliveryChance: 0.1 });
      this.later(1000, 15_000, () =>
        Object.assign(habits, { busLossChance: 0, busDuplicateChance: 0, redeliveryChance: 0 }),
      );
    } else {
      const name = random.pick(this.everybody());
      nats.lagMs.set(name, 50 + random.next() * 4000);
      this.later(1000, 15_000, () => nats.lagMs.delete(name));
    }
  }

  private linkFault(kind: FaultKind): void {
    const { world } = this;
    const { network, random, subjects } = world;
    const name = random.chance(0.6) ? this.someGateway() : random.pick(world.nodes).name;
    if (kind === "clock jumps") {
      world.scheduler.jumpWallClock(Math.floor((random.next() - 0.5) * 7_200_000));
    } else if (kind === "hears late") {
      this.hearsLate();
    } else if (kind === "part two processes") {
      const other = random.pick(world.nodes).name;
      const pairs = [`${name}>${other}`, `${other}>${name}`].filter(() => random.chance(0.8));
      world.note(`parted: ${pairs.join(", ")}`);
      for (const pair of pairs) subjects.parted.add(pair);
      this.later(500, 20_000, () => pairs.forEach((pair) => subjects.parted.delete(pair)));
    } else {
      const other = kind === "cut client" ? random.pick(world.clients).name : servers;
      const ways = [
        [name, other],
        [other, name],
      ] as const;
      const chosen = kind === "cut one way" ? [random.pick(ways)] : ways;
      const how = random.chance(0.5) ? "lose" : "hold";
      world.note(`${kind}: ${chosen.map(([from, to]) => `${from}>${to}`).join(", ")} (${how})`);
      for (const [from, to] of chosen) {
        if (kind === "slow link") network.slow(from, to, 20 + random.next() * 400);
        else network.cut(from, to, how);
      }
      this.later(500, 15_000, () => chosen.forEach(([from, to]) => network.heal(from, to)));
    }
  }

  /** Its lease runs out and its clients go, while all that it hears of the others is a second or two old. */
  private hearsLate(): void {
    const { world } = this;
    const { network, random } = world;
    const name = this.someGateway();
    world.note(`${name} hears late and is not heard`);
    network.cut(name, servers, "lose");
    network.slow(servers, name, 500 + random.next() * 2000);
    const gateway = world.gateway(name);
    this.later(1000, 3000, () => {
      for (const client of world.clients) if (random.chance(0.7)) client.broken(name);
      if (gateway !== null) world.hurry(gateway, 2500);
    });
    this.later(6000, 15_000, () => {
      network.heal(name, servers);
      network.heal(servers, name);
    });
  }

  /** Mostly the one that serves. */
  private someGateway(): string {
    const { world } = this;
    const serving = world.gateways.find(({ gateway }) => (gateway?.lease?.remainingMs() ?? 0) > 0);
    return serving !== undefined && world.random.chance(0.7)
      ? serving.name
      : world.random.pick(world.gatewayNames);
  }

  private everybody(): readonly string[] {
    const { world } = this;
    return [...world.gatewayNames, ...world.nodes.map(({ name }) => name)];
  }

  private later(fromMs: number, toMs: number, run: () => void): void {
    const { random, scheduler } = this.world;
    scheduler.after(fromMs + random.next() * (toMs - fromMs), run);
  }
}
