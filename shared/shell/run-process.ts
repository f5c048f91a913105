/*
 * The life of a server process as one Effect: signals, scoped ports, exit code. `varve up` (services/cli/commands/up.ts)
 * gives it a program that opens its ports by scopedPort; their closing runs in the opposite order of opening.
 * First SIGTERM or SIGINT: interrupt, close everything, exit 0. A second one: exit at once (the log makes that safe).
 * A broken invariant anywhere stops the process at once with code 70 for the same reason.
 */
import * as Cause from "effect/Cause";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Fiber from "effect/Fiber";
import type * as Scope from "effect/Scope";
import { errorTable, toVarveError, type VarveError } from "#shared/domain/errors.ts";

/** A plain object with an asynchronous open and close, as a resource of the surrounding scope. */
export const scopedPort = <A>(
  what: string,
  open: () => Promise<A>,
  close: (opened: A) => Promise<void>,
): Effect.Effect<A, VarveError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.tryPromise({ try: open, catch: (cause) => toVarveError(cause, what) }),
    (opened) => Effect.promise(async () => close(opened)),
  );

/** Runs a promise of a port; its failure is a typed VarveError. */
export const fromPort = <A>(what: string, run: () => Promise<A>): Effect.Effect<A, VarveError> =>
  Effect.tryPromise({ try: run, catch: (cause) => toVarveError(cause, what) });

export interface ProcessEvents {
  /** The first signal came; what is under way is being finished. */
  stopping(signal: string): void;
  /** Something ended the process that no caller was there to hear. */
  crashed(error: VarveError): void;
}

const stopSignals = ["SIGTERM", "SIGINT"] as const;

/** Runs the program until it ends by itself or by a signal. Resolves when everything is closed; rejects with a VarveError. */
export async function runProcess(
  program: Effect.Effect<void, VarveError, Scope.Scope>,
  events: ProcessEvents,
): Promise<void> {
  const crash = (cause: unknown): void => {
    const error = toVarveError(cause, "unexpected failure");
    events.crashed(error);
    process.exit(errorTable[error.kind].exitCode);
  };
  process.on("uncaughtException", crash);
  process.on("unhandledRejection", crash);
  const fiber = Effect.runFork(Effect.scoped(program));
  let stopping = false;
  const stop = (signal: (typeof stopSignals)[number]): void => {
    if (stopping) process.exit(signal === "SIGINT" ? 130 : 143);
    stopping = true;
    events.stopping(signal);
    Effect.runFork(Fiber.interrupt(fiber));
  };
  for (const signal of stopSignals) process.on(signal, stop);
  const exit = await Effect.runPromise(Fiber.await(fiber));
  if (Exit.isSuccess(exit)) return;
  if (stopping && Cause.hasInterruptsOnly(exit.cause)) return;
  throw toVarveError(Cause.squash(withoutInterrupts(exit.cause)), "varve");
}

/** A failure to close counts for more than the interrupt that led to it. */
function withoutInterrupts<E>(cause: Cause.Cause<E>): Cause.Cause<E> {
  const reasons = cause.reasons.filter((reason) => !Cause.isInterruptReason(reason));
  return reasons.length === 0 ? cause : Cause.fromReasons(reasons);
}
