/*
 * Time and chance as ports, so that the simulator owns both. Engines never call Date.now, setTimeout or Math.random.
 * Adapters: adapters/clock/system.ts and the simulator's. Timers are for slow things (a checkpoint, a poll): none per request.
 */

export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Wall time, milliseconds since 1970. May jump. */
  wallTimeMs(): number;
  /** Monotonic milliseconds with fraction, from an arbitrary start. */
  monotonicMs(): number;
  /** Runs `task` once after at least `delayMs`. Does not keep the process alive. */
  after(delayMs: number, task: () => void): Timer;
  /** Runs `task` when the current round of input has been handled (setImmediate). */
  soon(task: () => void): void;
}

export interface Random {
  /** `bytes` random bytes as lower-case hex. */
  hex(bytes: number): string;
  /** Uniform in [0, 1). */
  next(): number;
}
