/*
 * `varve storage`: one storage node of a cluster as a process. Reads its configuration, serves health checks, opens the node
 * (services/storage/node-layer.ts), and waits for a signal; then every image is checkpointed and detached.
 */
import * as Effect from "effect/Effect";
import { readStorageConfig } from "#shared/shell/cluster-config.ts";
import { withConfigFile } from "#shared/shell/config-file.ts";
import { scopedPort } from "#shared/shell/run-process.ts";
import type { CommandLine } from "../command-line.ts";
import { printLine, printNote } from "../output.ts";
import { runService } from "../service-process.ts";
import { varveVersion } from "./version.ts";

export async function storage(line: CommandLine): Promise<number> {
  const config = readStorageConfig(withConfigFile(line, line.command.flags));
  return await runService(line, config, (serveReadiness) =>
    Effect.gen(function* () {
      const { openStorageNode } = yield* Effect.promise(async () => import("../../storage/node-layer.ts"));
      const { runScrub } = yield* Effect.promise(async () => import("../../archiver/scrub-layer.ts"));
      const opened = yield* scopedPort(
        "open the storage node",
        async () => openStorageNode(config, varveVersion(), printNote, runScrub),
        async (one) => one.close(),
      );
      serveReadiness(() => opened.readiness());
      printLine(`storage node ${config.name} keeps replicas in ${config.pools.map(placeOf).join(", ")}`);
    }),
  );
}

function placeOf({ name, directory }: { readonly name: string; readonly directory: string }): string {
  return `${directory} (${name})`;
}
