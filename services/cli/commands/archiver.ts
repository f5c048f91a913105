/*
 * `varve archiver`: one archiver of a cluster as a process. Reads its configuration, serves health checks, opens the archiver
 * (services/archiver/cluster-layer.ts), and waits for a signal; then the rest of each log is archived where the bucket answers, and the
 * volumes are let go.
 */
import * as Effect from "effect/Effect";
import { readArchiverConfig } from "#shared/shell/cluster-config.ts";
import { withConfigFile } from "#shared/shell/config-file.ts";
import { scopedPort } from "#shared/shell/run-process.ts";
import type { CommandLine } from "../command-line.ts";
import { printLine, printNote } from "../output.ts";
import { runService } from "../service-process.ts";

export async function archiver(line: CommandLine): Promise<number> {
  const config = readArchiverConfig(withConfigFile(line, line.command.flags));
  return await runService(line, config, (serveReadiness) =>
    Effect.gen(function* () {
      const { openClusterArchiver } = yield* Effect.promise(
        async () => import("../../archiver/cluster-layer.ts"),
      );
      const opened = yield* scopedPort(
        "open the archiver",
        async () => openClusterArchiver(config, printNote),
        async (one) => one.close(),
      );
      serveReadiness(() => opened.readiness());
      printLine(`archiver ${config.name} keeps history in ${opened.place}`);
    }),
  );
}
