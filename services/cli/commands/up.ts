/*
 * `varve up`: one process that serves all volumes of a data directory. Reads the configuration, opens the parts in order
 * (volumes, NBD, HTTP), says what is served and how to use it, then waits for a signal. Closing runs backwards: HTTP, then
 * NBD stops accepting and drains, then each volume flushes its log, checkpoints and lets go of its image. The parts are
 * wired by single-machine.ts.
 */
import { arch, hostname } from "node:os";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { errorBody } from "#shared/api/error-body.ts";
import { exactByteSize } from "#shared/domain/byte-size.ts";
import { machineNameMistake } from "#shared/domain/cluster.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { VolumeView } from "#shared/ports/volume-administration.ts";
import { readUpConfig, type UpConfig, type VolumeWish } from "#shared/shell/config.ts";
import { addressText, isLoopback, nbdUri } from "#shared/shell/listen-address.ts";
import { fromPort, runProcess, scopedPort } from "#shared/shell/run-process.ts";
import { announced } from "../announcing.ts";
import type { CommandLine } from "../command-line.ts";
import { howToUse } from "../how-to-use.ts";
import { printError, printLine, printNote } from "../output.ts";
import { type OpenVolumes, openVolumes, serveNbd } from "../single-machine.ts";
import { varveVersion } from "./version.ts";

const readyLine = "varve is ready";

export async function up(line: CommandLine): Promise<number> {
  const config = readUpConfig(line);
  const json = line.values.has("json");
  await runProcess(serve(config, json), {
    stopping: (signal) => printNote(`varve: ${signal}, finishing; once more to stop at once`),
    crashed: (error) => printError(error, json),
  });
  printNote("varve: stopped");
  return 0;
}

const serve = (config: UpConfig, json: boolean): Effect.Effect<void, VarveError, Scope.Scope> =>
  Effect.gen(function* () {
    const opened = yield* scopedPort(
      "open the data directory",
      async () => openVolumes({ ...config, create: true, onNote: printNote }),
      async (volumes) => volumes.close(),
    );
    yield* fromPort("open the volumes", async () => opened.serve());
    yield* fromPort("create volumes", async () => createMissing(config.volumes, opened));
    const nbd = yield* scopedPort(
      "listen for NBD",
      async () => serveNbd(opened, config),
      async (server) => server.stop(),
    );
    if (config.http !== null) {
      const { http } = config;
      const { serveApi } = yield* fromPort("load the API", async () => import("../../api/layer.ts"));
      const startedAt = new Date().toISOString();
      const subject = {
        volumes: opened.host,
        past: opened.host.past,
        bucket: () => opened.bucket(),
        connections: nbd,
        urisOf: (name: string) => config.nbd.map((address) => nbdUri(address, name)),
        process: async () => ({
          version: varveVersion(),
          pid: process.pid,
          startedAt,
          dataDirectory: opened.dataDirectory,
          nbd: config.nbd.map(addressText),
          residentBytes: process.memoryUsage.rss(),
          freeBytes: await opened.freeBytes(),
        }),
      };
      yield* serveApi(subject, http);
    }
    const { runSchedules } = yield* fromPort(
      "load schedules",
      async () => import("../../api/schedule-layer.ts"),
    );
    yield* scopedPort(
      "run schedules",
      async () => runSchedules({ volumes: opened.host, past: opened.host.past, onNote: printNote }),
      async (schedules) => schedules.stop(),
    );
    yield* announced(config.mdns, machineName(), () => servedBy(opened).map(({ name }) => name));
    yield* fromPort("report", async () => report(config, opened, json));
    return yield* Effect.never;
  });

/** The host's name as far as it may name a gateway. */
function machineName(): string {
  const name = hostname().toLowerCase().split(".")[0] ?? "";
  return machineNameMistake(name) === null ? name : "varve";
}

/** Without those that were deleted and are still here. */
function servedBy({ host }: OpenVolumes): readonly VolumeView[] {
  return host.list().filter(({ condition }) => condition !== "deleting");
}

/** Creates what is missing; a volume that was asked for by name and can't be served ends the start. */
async function createMissing(wishes: readonly VolumeWish[], opened: OpenVolumes): Promise<void> {
  for (const wish of wishes) {
    opened.host.settling.refuse(wish.name);
    const found = opened.host.list().find((view) => view.name === wish.name);
    if (found === undefined) {
      await opened.host.create({ ...wish, durability: wish.durability ?? "write" });
      continue;
    }
    if (found.failure !== null) throw found.failure;
    requireSame(wish, found);
  }
}

function requireSame(wish: VolumeWish, found: VolumeView): void {
  if (found.sizeBytes !== wish.sizeBytes) {
    const wanted = exactByteSize(wish.sizeBytes);
    const shrink = wish.sizeBytes < found.sizeBytes ? " --shrink" : "";
    throw new VarveError(
      "VolumeDiffersError",
      "Invalid",
      `--volume: ${wish.name} exists with ${exactByteSize(found.sizeBytes)}, not ${wanted}`,
      {
        hint: `Nothing was changed. To resize it: varve volume resize ${wish.name} --size ${wanted}${shrink}.`,
        fields: { name: wish.name, sizeBytes: found.sizeBytes, wantedBytes: wish.sizeBytes },
      },
    );
  }
  if (wish.durability === null || found.durability === wish.durability) return;
  throw new VarveError(
    "VolumeDiffersError",
    "Invalid",
    `--volume: ${wish.name} exists with durability ${found.durability}, not ${wish.durability}`,
    {
      hint: `Nothing was changed. To change it: varve volume set ${wish.name} --durability ${wish.durability}.`,
      fields: { name: wish.name, durability: found.durability },
    },
  );
}

async function report(config: UpConfig, opened: OpenVolumes, json: boolean): Promise<void> {
  const views = servedBy(opened);
  const uris = (name: string): string[] => config.nbd.map((address) => nbdUri(address, name));
  if (json) {
    const volumes = views.map((view) => ({
      name: view.name,
      sizeBytes: view.sizeBytes,
      durability: view.durability,
      condition: view.condition,
      failure: view.failure === null ? null : errorBody(view.failure),
      uris: uris(view.name),
      imagePath: view.imagePath,
    }));
    const http = config.http === null ? null : `http://${addressText(config.http)}`;
    printLine(JSON.stringify({ version: varveVersion(), pid: process.pid, http, volumes }));
  } else {
    printLine(`varve ${varveVersion()} (pid ${process.pid}, ${arch()}), data in ${opened.dataDirectory}`);
    printLine();
    printLine(howToUse(views, config));
  }
  warnings(config, views, await opened.host.strangers());
  for (const { name, move } of opened.host.moved.list()) {
    printNote(`note: volume ${name} was moved to ${move?.place ?? ""} and is not served here`);
  }
  for (const name of opened.host.settling.names()) {
    printNote(`note: volume ${name} was deleted; its files stay until the bucket holds all of it`);
  }
  printLine(readyLine);
}

function warnings(config: UpConfig, views: readonly VolumeView[], strangers: readonly string[]): void {
  const open = [...config.nbd, ...(config.http === null ? [] : [config.http])].filter(
    (one) => !isLoopback(one),
  );
  for (const address of open) {
    printNote(
      `warning: ${addressText(address)} is reachable from the network, without TLS and without a token`,
    );
  }
  for (const { name, failure } of views) {
    if (failure === null) continue;
    printNote(`warning: volume ${name} is not served: ${failure.message}`);
    if (failure.hint !== "") printNote(`hint: ${failure.hint}`);
  }
  for (const name of strangers) {
    printNote(`warning: volumes/${name} belongs to no volume of the catalogue; it is left alone`);
  }
}
