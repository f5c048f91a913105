/*
 * How long writes wait while the log can't be reached or has no quorum (promise 8): up to a limit, then they get EIO, and so do all that
 * come, until the log goes on. Reads go on meanwhile. Told by the log through volume-session.ts; the cluster gateway's layer makes
 * one for each session, whose admission asks it.
 *
 *   patient ─stalled─► waiting ─limit─► refusing      waiting, refusing ─log goes on─► patient
 */
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { Patience } from "#shared/domain/patience.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";

export class WritePatience {
  readonly #clock: Clock;
  readonly #limitMs: number;
  #timer: Timer | null = null;
  /** Why writes are refused now; null: they are taken in. */
  refusal: VarveError | null = null;

  constructor(clock: Clock, limitMs: number = limits.writePatienceMs) {
    this.#clock = clock;
    this.#limitMs = limitMs;
  }

  /** LogListener.stalled. `answerWaiting` fails the writes that wait; their entries may still become durable. */
  stalled(error: VarveError | null, answerWaiting: (late: VarveError) => void): void {
    if (error === null) {
      this.#timer?.cancel();
      this.#timer = null;
      this.refusal = null;
      return;
    }
    if (this.#timer !== null || this.refusal !== null) return;
    this.#timer = new Patience(this.#clock, this.#limitMs).wait(() => {
      this.#timer = null;
      this.refusal = late(error, this.#limitMs);
      answerWaiting(this.refusal);
    });
  }
}

function late(cause: VarveError, limitMs: number): VarveError {
  const seconds = Math.round(limitMs / 1000);
  return new VarveError(
    "LogUnreachable",
    cause.kind === "Full" ? "Full" : "Retry",
    `the log could not be reached for ${seconds} s: ${cause.message}`,
    {
      hint: "Look whether enough NATS servers run. Reads go on, and writes do when the log is back.",
      cause,
    },
  );
}
