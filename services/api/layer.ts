/*
 * The HTTP API as a resource of a process: builds the routes, listens, closes. `varve up` acquires it last and so closes
 * it first. Node's own server underneath, with short limits: it serves a few calls of people and monitors.
 */
import { createServer, type Server } from "node:http";
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer";
import * as Effect from "effect/Effect";
import * as HttpRouter from "effect/http/HttpRouter";
import * as Layer from "effect/Layer";
import type * as Scope from "effect/Scope";
import type { VarveError } from "#shared/domain/errors.ts";
import type { UpConfig } from "#shared/shell/config.ts";
import { listenError } from "#shared/shell/listen-error.ts";
import { scopedPort } from "#shared/shell/run-process.ts";
import type { ApiSubject } from "./api-subject.ts";
import { guarded } from "./guard.ts";
import { apiRoutes } from "./routes.ts";

type HttpAddress = NonNullable<UpConfig["http"]>;

const headersMs = 10_000;
const requestMs = 30_000;
/** Calls under way at shutdown get this long. */
const closeMs = 5000;

/** Serves the API on `address` until the scope closes. Fails with a VarveError where the address can't be had. */
export const serveApi = (
  subject: ApiSubject,
  address: HttpAddress,
): Effect.Effect<void, VarveError, Scope.Scope> =>
  Effect.gen(function* () {
    const scope = yield* Effect.scope;
    const app = yield* HttpRouter.toHttpEffect(
      apiRoutes(subject).pipe(Layer.provide(NodeHttpServer.layerHttpServices)),
    );
    const listener = yield* NodeHttpServer.makeHandler(guarded(app, address), { scope });
    yield* scopedPort(
      "listen for HTTP",
      async () =>
        listen(createServer({ headersTimeout: headersMs, requestTimeout: requestMs }, listener), address),
      close,
    );
  });

async function listen(server: Server, address: HttpAddress): Promise<Server> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause) => reject(listenError("--http", address, cause)));
    server.listen({ host: address.host, port: address.port }, resolve);
  });
  return server;
}

async function close(server: Server): Promise<void> {
  const late = setTimeout(() => server.closeAllConnections(), closeMs);
  await new Promise<void>((resolve) => {
    server.close(() => resolve());
    server.closeIdleConnections();
  });
  clearTimeout(late);
}
