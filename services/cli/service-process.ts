/*
 * The life of a process of a cluster, the same for gateway, storage and api: health checks first, then the service, the ready line,
 * a signal, everything closed backwards, exit 0. Called by commands/{gateway,storage,api}.ts; below it shared/shell/run-process.ts.
 */
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { VarveError } from "#shared/domain/errors.ts";
import type { ServiceConfig } from "#shared/shell/cluster-config.ts";
import { type Readiness, serveHealth } from "#shared/shell/health-server.ts";
import { runProcess } from "#shared/shell/run-process.ts";
import type { CommandLine } from "./command-line.ts";
import { printError, printLine, printNote } from "./output.ts";

const readyLine = "varve is ready";

/** `open` acquires the service in the process's scope and says how ready it is from then on. */
export async function runService(
  line: CommandLine,
  config: ServiceConfig,
  open: (
    serveReadiness: (readiness: () => Readiness) => void,
  ) => Effect.Effect<void, VarveError, Scope.Scope>,
): Promise<number> {
  const json = line.values.has("json");
  let readiness = (): Readiness => ({ ready: false, missing: ["it is starting"], detail: {} });
  const program = Effect.gen(function* () {
    yield* serveHealth(config.health, () => readiness());
    yield* open((given) => {
      readiness = given;
    });
    printLine(readyLine);
    return yield* Effect.never;
  });
  await runProcess(program, {
    stopping: (signal) => {
      readiness = () => ({ ready: false, missing: ["it is stopping"], detail: {} });
      printNote(`varve: ${signal}, finishing; once more to stop at once`);
    },
    crashed: (error) => printError(error, json),
  });
  printNote("varve: stopped");
  return 0;
}
