/*
 * Assertions that are always on: one condition each. A broken one means that our own code is wrong; the process stops and
 * the log makes that safe. Callers everywhere; the shell turns the error into an exit.
 */
import { VarveError } from "./errors.ts";

export class InvariantError extends VarveError {
  constructor(message: string) {
    super("InvariantError", "Internal", `broken invariant: ${message}`, {
      hint: "This is a defect in Varve. Stop, keep the data directory, start again: the log is replayed.",
    });
  }
}

export function invariant(condition: boolean, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}
