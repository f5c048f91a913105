/*
 * A process that announces itself by mDNS, where its configuration says so: nothing is loaded and no socket opened otherwise. Commands that
 * serve NBD call it last (commands/up.ts, commands/gateway.ts). See docs/specs/discover.md.
 */
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { VarveError } from "#shared/domain/errors.ts";
import type { MdnsConfig } from "#shared/shell/config.ts";
import { isLoopback } from "#shared/shell/listen-address.ts";
import { fromPort, scopedPort } from "#shared/shell/run-process.ts";
import { varveVersion } from "./commands/version.ts";
import { printNote } from "./output.ts";

export const announced = (
  config: MdnsConfig | null,
  name: string,
  exports: () => readonly string[],
): Effect.Effect<void, VarveError, Scope.Scope> =>
  Effect.gen(function* () {
    if (config === null) return;
    const { Announcer } = yield* fromPort(
      "load mDNS",
      async () => import("#shared/adapters/discovery/multicast.ts"),
    );
    const { onAddress, address, port } = config;
    const version = varveVersion();
    yield* scopedPort(
      "announce by mDNS",
      async () =>
        Announcer.start({
          onAddress,
          announcement: () => ({ name, address, port, version, exports: exports() }),
          onNote: printNote,
        }),
      async (announcer) => announcer.close(),
    );
    if (isLoopback({ kind: "tcp", host: onAddress, port })) return;
    printNote(`warning: --mdns: whoever is on the network of ${onAddress} can read the names of volumes`);
  });
