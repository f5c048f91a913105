/*
 * An error of a port as the answer to a request: its body and its status. Handlers (routes.ts, past-routes.ts) end with it, and
 * guard.ts answers with the same shape.
 */
import * as Effect from "effect/Effect";
import * as HttpServerResponse from "effect/http/HttpServerResponse";
import { errorBody, httpStatusOf } from "#shared/api/error-body.ts";
import type { VarveError } from "#shared/domain/errors.ts";

export function errorResponse(error: VarveError): HttpServerResponse.HttpServerResponse {
  const body = errorBody(error);
  const status = httpStatusOf(body);
  // What was not read of a refused body would be taken for the next request.
  return HttpServerResponse.jsonUnsafe(body, {
    status,
    headers: status === 413 ? { connection: "close" } : {},
  });
}

export const answered = <A, R>(
  effect: Effect.Effect<A, VarveError, R>,
): Effect.Effect<A | HttpServerResponse.HttpServerResponse, never, R> =>
  effect.pipe(Effect.catch((error) => Effect.succeed(errorResponse(error))));
