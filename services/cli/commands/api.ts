/*
 * `varve api`: the HTTP API of a cluster as a process. Reads its configuration, serves health checks, opens the cluster
 * (services/api/cluster-layer.ts), serves HTTP, and waits for a signal.
 */
import { setImmediate } from "node:timers/promises";
import * as Effect from "effect/Effect";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { readApiConfig } from "#shared/shell/cluster-config.ts";
import { withConfigFile } from "#shared/shell/config-file.ts";
import { addressText } from "#shared/shell/listen-address.ts";
import { scopedPort } from "#shared/shell/run-process.ts";
import type { ClusterApiHome } from "../../api/cluster-layer.ts";
import type { CommandLine } from "../command-line.ts";
import { printLine, printNote } from "../output.ts";
import { runService } from "../service-process.ts";
import { varveVersion } from "./version.ts";

async function clusterApiHome(): Promise<ClusterApiHome> {
  const { JobRegister } = await import("../../gateway/layer.ts");
  const { checkStore, deletedOfStore, usageOfStore } = await import("../../archiver/keeper-layer.ts");
  const [clock, random] = [new SystemClock(), new SystemRandom()];
  return {
    version: varveVersion(),
    jobs: new JobRegister(clock, random),
    bucketOf: (store, who) => ({
      deleted: deletedOfStore(store, { clock, random, who }),
      requests: () => store.counters,
      usage: async () => usageOfStore(store),
      check: async (quick, onProgress) =>
        checkStore(store, { quick, onProgress, breathe: async () => setImmediate() }),
    }),
  };
}

export async function api(line: CommandLine): Promise<number> {
  const config = readApiConfig(withConfigFile(line, line.command.flags));
  return await runService(line, config, (serveReadiness) =>
    Effect.gen(function* () {
      const { openClusterApi } = yield* Effect.promise(async () => import("../../api/cluster-layer.ts"));
      const { serveApi } = yield* Effect.promise(async () => import("../../api/layer.ts"));
      const opened = yield* scopedPort(
        "open the cluster",
        async () => openClusterApi(config, await clusterApiHome(), printNote),
        async (one) => one.close(),
      );
      yield* serveApi(opened.subject, config.http);
      serveReadiness(() => opened.readiness());
      printLine(`api ${config.name} listens on http://${addressText(config.http)}`);
    }),
  );
}
