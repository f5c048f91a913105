/*
 * `varve gateway`: one gateway of a cluster as a process. Reads its configuration, serves health checks, opens the gateway
 * (services/gateway/cluster-layer.ts), and waits for a signal. Closing runs backwards: NBD stops accepting and drains, sessions
 * close, leases are released.
 */
import * as Effect from "effect/Effect";
import { readGatewayConfig } from "#shared/shell/cluster-config.ts";
import { withConfigFile } from "#shared/shell/config-file.ts";
import { addressText } from "#shared/shell/listen-address.ts";
import { scopedPort } from "#shared/shell/run-process.ts";
import { announced } from "../announcing.ts";
import type { CommandLine } from "../command-line.ts";
import { printLine, printNote } from "../output.ts";
import { runService } from "../service-process.ts";

export async function gateway(line: CommandLine): Promise<number> {
  const config = readGatewayConfig(withConfigFile(line, line.command.flags));
  return await runService(line, config, (serveReadiness) =>
    Effect.gen(function* () {
      const { openClusterGateway } = yield* Effect.promise(
        async () => import("../../gateway/cluster-layer.ts"),
      );
      const opened = yield* scopedPort(
        "open the gateway",
        async () => openClusterGateway(config, printNote),
        async (one) => one.close(),
      );
      yield* announced(config.mdns, config.name, () => opened.exportNames());
      serveReadiness(() => opened.readiness());
      printLine(`gateway ${config.name} listens on ${config.nbd.map(addressText).join(", ")}`);
    }),
  );
}
