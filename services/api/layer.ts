/*
 * The HTTP API as a resource of a process: listens, and builds the application (application.ts) at the first request.
 * `varve up` acquires it last and so closes it first. Built late because Effect's HTTP modules cost 0.2 s and 55 MiB, which
 * a server that nobody asks anything of need not pay. Node's own server underneath, with short limits.
 */
import { createServer, type RequestListener, type Server } from "node:http";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { errorBody } from "#shared/api/error-body.ts";
import { toVarveError, type VarveError } from "#shared/domain/errors.ts";
import type { UpConfig } from "#shared/shell/config.ts";
import { listenError } from "#shared/shell/listen-error.ts";
import { scopedPort } from "#shared/shell/run-process.ts";
import type { ApiSubject } from "./api-subject.ts";

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
    const context = yield* Effect.context<Scope.Scope>();
    const build = Effect.promise(async () => import("./application.ts")).pipe(
      Effect.flatMap(({ application }) => application(subject, address)),
    );
    const listener = lateListener(async () => Effect.runPromiseWith(context)(build));
    yield* scopedPort(
      "listen for HTTP",
      async () =>
        listen(createServer({ headersTimeout: headersMs, requestTimeout: requestMs }, listener), address),
      close,
    );
  });

/** Requests wait for the application; where it can't be built each is told so. */
function lateListener(build: () => Promise<RequestListener>): RequestListener {
  let built: Promise<RequestListener> | null = null;
  return (request, response) => {
    built ??= build();
    built.then(
      (handle) => handle(request, response),
      (cause: unknown) => {
        response.writeHead(500, { "content-type": "application/json", connection: "close" });
        response.end(JSON.stringify(errorBody(toVarveError(cause, "the HTTP API can't be built"))));
      },
    );
  };
}

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
