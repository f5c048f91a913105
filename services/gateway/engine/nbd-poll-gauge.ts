/*
 * Whether polling a lone client's socket pays, learnt from what polling found: each miss doubles the pause until the next
 * try, each hit ends it. Used by nbd-connection.ts after an answer; a client that went idle costs one miss, then nothing.
 */
import { limits } from "#shared/domain/limits.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { SystemCalls } from "./nbd-system-calls.ts";

const pauseMax = 255;

export class PollGauge {
  hits = 0;
  misses = 0;
  private readonly clock: Clock;
  private pause = 0;
  private skip = 0;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** Whether to poll after this round; counts the round where not. */
  worthwhile(): boolean {
    if (this.skip === 0) return true;
    this.skip -= 1;
    return false;
  }

  /** Asks until bytes come or the time is over. The bytes received; 0 or less where there are none to be had. */
  ask(calls: SystemCalls, fd: number, address: number, length: number): number {
    const endMs = this.clock.monotonicMs() + Number(process.env["POLL"] ?? 0.06);
    do {
      const bytes = calls.receive(fd, address, length);
      if (bytes > 0) {
        this.hits += 1;
        this.pause = 0;
        return bytes;
      }
      // 0 is the end of the stream: libuv will see it too and tell the socket.
      if (bytes === 0) return 0;
    } while (this.clock.monotonicMs() < endMs);
    this.misses += 1;
    this.pause = Math.min(2 * this.pause + 1, pauseMax);
    this.skip = this.pause;
    return 0;
  }
}
