/*
 * The JetStream log: one volume's WriteLog in a stream of a NATS cluster, for several machines. open() takes the tenure
 * (jetstream-takeover.ts) and hands a writer out; the gateway's volume session uses it as it uses the embedded log. The rules
 * are docs/specs/jetstream-log.md, the bytes docs/formats/log-message.md.
 */
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { LogOpenOptions, WriteLog } from "#shared/ports/write-log.ts";
import { fencedByEpoch, smallServers } from "./jetstream-errors.ts";
import { type JetStreamLogParts, type JetStreamLogSetup, jetStreamLogSetup } from "./jetstream-parts.ts";
import { Takeover, type Tenure } from "./jetstream-takeover.ts";
import { JetStreamLogWriter } from "./jetstream-writer.ts";

export class JetStreamWriteLog implements WriteLog {
  readonly #setup: JetStreamLogSetup;
  #writer: JetStreamLogWriter | null = null;

  constructor(parts: JetStreamLogParts | JetStreamLogSetup) {
    this.#setup = "stream" in parts ? parts : jetStreamLogSetup(parts);
  }

  async open(options: LogOpenOptions): Promise<JetStreamLogWriter> {
    await this.#writer?.close();
    const { stream } = this.#setup;
    if (stream.bodyBytesMax < limits.jetstreamMessageBytesMin - limits.jetstreamMarginBytes) {
      throw smallServers(stream.bodyBytesMax + limits.jetstreamMarginBytes);
    }
    const tenure = await this.#take(options);
    this.#writer = new JetStreamLogWriter(this.#setup, tenure, options);
    return this.#writer;
  }

  async close(): Promise<void> {
    await this.#writer?.close();
  }

  async #take(options: LogOpenOptions): Promise<Tenure> {
    const { clock, stream, openMs } = this.#setup;
    const { writer, epoch, knownLsn, begin } = options;
    const takeover = new Takeover(this.#setup, { writer, epoch, knownLsn, begin });
    const endMs = clock.monotonicMs() + openMs;
    let waitMs: number = limits.jetstreamRetryFirstWaitMs;
    for (;;) {
      try {
        const outcome = await takeover.attempt();
        if (outcome?.kind === "taken") return outcome;
        if (outcome !== null) throw fencedByEpoch(stream.name, epoch ?? 0, outcome.epoch);
      } catch (cause) {
        const isRetry = cause instanceof VarveError && cause.kind === "Retry";
        if (!isRetry || clock.monotonicMs() >= endMs) throw cause;
      }
      await new Promise<void>((resolve) => {
        clock.after(waitMs, resolve);
      });
      waitMs = Math.min(2 * waitMs, limits.jetstreamRetryWaitMsMax);
    }
  }
}
