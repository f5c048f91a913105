/*
 * Whether polling a lone client's socket pays, learnt from what polling found: each miss doubles the pause until the next
 * try, each hit ends it. Used by nbd-connection.ts after an answer; a client that went idle costs one miss, then nothing.
 */
import { limits } from "#shared/domain/limits.ts";
import type { SystemCalls } from "./nbd-system-calls.ts";

const pauseMax = 255;

export class PollGauge {
  hits = 0;
  misses = 0;
  private pause = 0;
  private skip = 0;

  /** Whether to poll after this round; counts the round where not. */
  worthwhile(): boolean {
    if (this.skip === 0) return true;
    this.skip -= 1;
    return false;
  }

  /** Asks until bytes come, a bounded number of times. The bytes received; 0 or less where there are none to be had. */
  ask(calls: SystemCalls, fd: number, address: number, length: number): number {
    for (let count = 0; count < limits.nbdPollAsksMax; count += 1) {
      const bytes = calls.receive(fd, address, length);
      if (bytes > 0) {
        this.hits += 1;
        this.pause = 0;
        return bytes;
      }
      // 0 is the end of the stream: libuv will see it too and tell the socket.
      if (bytes === 0) return 0;
    }
    this.misses += 1;
    this.pause = Math.min(2 * this.pause + 1, pauseMax);
    this.skip = this.pause;
    return 0;
  }
}
