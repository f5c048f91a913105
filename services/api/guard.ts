/*
 * What every request passes before and behind its route: the Host header must name this server (a page in a browser that
 * rebinds its own DNS name to 127.0.0.1 comes with that name), foreign origins are refused, and whatever goes wrong
 * outside a handler is answered in the shape of all other errors. layer.ts puts it around routes.ts.
 */
import * as Cause from "effect/Cause";
import * as Effect from "effect/Effect";
import { HttpServerError } from "effect/http/HttpServerError";
import { HttpServerRequest } from "effect/http/HttpServerRequest";
import type { HttpServerResponse } from "effect/http/HttpServerResponse";
import { HttpApiSchemaError } from "effect/http-api/HttpApiError";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { isLoopback, type ListenAddress } from "#shared/shell/listen-address.ts";
import { errorResponse } from "./answered.ts";

const literalAddress = /^(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-f:.]+\])$/i;

/** Why a Host header is refused, or null. A literal address can't be rebound; localhost is ours; names only where configured. */
export function hostMistake(host: string | undefined, address: ListenAddress): VarveError | null {
  const name = (host ?? "").replace(/:\d+$/, "");
  if (name === "localhost" || literalAddress.test(name)) return null;
  // Beyond loopback the administrator chose to be reached by whatever name the network has.
  if (!isLoopback(address) || (address.kind === "tcp" && name === address.host)) return null;
  return new VarveError(
    "ForeignHostError",
    "Invalid",
    `the Host header names ${JSON.stringify(name)}, not this server`,
    {
      hint: "Use http://127.0.0.1 or http://localhost. This keeps web pages from reaching a server on loopback.",
      fields: { host: name },
    },
  );
}

/** A browser sends Origin with every request that a page of another site makes; programs do not send it. */
export function originMistake(origin: string | undefined, host: string | undefined): VarveError | null {
  if (origin === undefined || origin === `http://${host ?? ""}`) return null;
  return new VarveError("ForeignHostError", "Invalid", `requests from pages of ${origin} are refused`, {
    hint: "This API has no cross-origin access.",
    fields: { origin },
  });
}

export const guarded = <R>(
  app: Effect.Effect<HttpServerResponse, unknown, R>,
  address: ListenAddress,
): Effect.Effect<HttpServerResponse, never, R | HttpServerRequest> =>
  Effect.gen(function* () {
    const request = yield* HttpServerRequest;
    const { host, origin } = request.headers;
    const foreign = hostMistake(host, address) ?? originMistake(origin, host);
    if (foreign !== null) return errorResponse(foreign);
    return yield* app.pipe(
      Effect.catchCause((cause) =>
        Cause.hasInterruptsOnly(cause)
          ? Effect.interrupt
          : Effect.succeed(errorResponse(explain(Cause.squash(cause), request))),
      ),
    );
  });

function explain(cause: unknown, request: HttpServerRequest): VarveError {
  const asked = `${request.method} ${request.url}`;
  if (cause instanceof HttpServerError && cause.reason._tag === "RouteNotFound") {
    return new VarveError("UnknownRouteError", "Invalid", `there is no ${asked}`, {
      hint: "All paths and methods are in /openapi.json.",
      fields: { method: request.method, path: request.url },
    });
  }
  if (HttpApiSchemaError.is(cause)) {
    return new VarveError(
      "RequestError",
      "Invalid",
      `${asked} is not understood: ${cause.kind.toLowerCase()}`,
      {
        hint: "All paths and parameters are in /openapi.json.",
        cause,
      },
    );
  }
  return toVarveError(cause, asked);
}
