/*
 * What a gateway has of the storage node on its own host: the files that both see, and when it last heard of the node. Judges that it
 * reads no image itself once the node has been silent too long. Made by cluster-gateway.ts, for whose replicas it gives bus and files.
 */
import { limits } from "#shared/domain/limits.ts";
import { decodeMessage, isBadMessage } from "#shared/formats/replica-message.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import type { DirectFiles } from "../../../services/gateway/engine/direct-reads.ts";
import { overriding } from "../mutant.ts";
import type { HostStore } from "./cluster-mutant.ts";
import { hostOf } from "./cluster-plan.ts";
import type { SimulatedProcess } from "./cluster-process.ts";
import type { ClusterWorld } from "./cluster-world.ts";
import { HostFiles } from "./host-files.ts";

export class Neighbour {
  /** Null: no node is on this host. */
  readonly files: DirectFiles | null;
  readonly bus: MessageBus;
  private readonly world: ClusterWorld;
  private readonly process: SimulatedProcess;
  private heardAtMs = Number.NEGATIVE_INFINITY;

  constructor(world: ClusterWorld, process: SimulatedProcess, bus: MessageBus) {
    this.world = world;
    this.process = process;
    const { clock } = process;
    const { files: store, bus: heard } = world.mutant.beside({
      files: this.store(),
      bus: this.listening(bus),
      clock,
    });
    const page = (): DirectFiles["noteSlab"] => ({ bytes: Buffer.alloc(limits.blockBytes), address: 0 });
    this.files = store === null ? null : { store, noteSlab: page(), warmSlab: page() };
    this.bus = heard;
  }

  private store(): HostStore | null {
    const { world, process } = this;
    const disk = world.diskBeside(process.name);
    if (disk === null) return null;
    return new HostFiles({
      disk,
      process,
      random: world.random.fork(),
      later: (delayMs, run) => world.scheduler.after(delayMs, run),
      onImageRead: () => this.judgeRead(),
    });
  }

  private listening(bus: MessageBus): MessageBus {
    return overriding<MessageBus>(bus, {
      subscribe: (pattern, listener) =>
        bus.subscribe(pattern, (data, subject) => {
          this.hear(data);
          listener(data, subject);
        }),
      request: async (subject, data, timeoutMs) => {
        const answer = await bus.request(subject, data, timeoutMs);
        this.hear(answer);
        return answer;
      },
    });
  }

  private hear(data: Uint8Array): void {
    const decoded = decodeMessage(data);
    if (isBadMessage(decoded) || decoded.message.type !== "state") return;
    const { host } = decoded.message.report;
    if (host === hostOf(this.process.name, this.world.plan)) {
      this.heardAtMs = this.process.clock.monotonicMs();
    }
  }

  private judgeRead(): void {
    const silentMs = this.process.clock.monotonicMs() - this.heardAtMs;
    if (silentMs <= limits.replicaSilentMs) return;
    this.world.fail(`${this.process.name} reads an image itself whose node is silent for ${silentMs} ms`);
  }
}
