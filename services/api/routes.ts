/*
 * The handlers of the HTTP API: each turns a request into one call of a port and the answer into JSON. A failure of a port
 * is answered with its body and status from here (shared/api/error-body.ts). layer.ts puts the guard and the server
 * around them.
 */
import * as Effect from "effect/Effect";
import * as HttpServerResponse from "effect/http/HttpServerResponse";
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder";
import * as Layer from "effect/Layer";
import { errorBody, httpStatusOf } from "#shared/api/error-body.ts";
import { bodies, varveApi } from "#shared/api/http-api.ts";
import { volumeBody } from "#shared/api/volume-body.ts";
import { byteSizeFrom } from "#shared/domain/byte-size.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import type { VolumeView } from "#shared/ports/volume-administration.ts";
import { fromPort } from "#shared/shell/run-process.ts";
import type { ApiSubject } from "./api-subject.ts";
import { metricsText } from "./metrics.ts";
import { readBody } from "./request-body.ts";

export function errorResponse(error: VarveError): HttpServerResponse.HttpServerResponse {
  const body = errorBody(error);
  const status = httpStatusOf(body);
  // What was not read of a refused body would be taken for the next request.
  return HttpServerResponse.jsonUnsafe(body, {
    status,
    headers: status === 413 ? { connection: "close" } : {},
  });
}

const answered = <A, R>(
  effect: Effect.Effect<A, VarveError, R>,
): Effect.Effect<A | HttpServerResponse.HttpServerResponse, never, R> =>
  effect.pipe(Effect.catch((error) => Effect.succeed(errorResponse(error))));

const sizeOf = (size: string | number): number =>
  typeof size === "number" ? size : byteSizeFrom(size, "size");

const volumeRoutes = (subject: ApiSubject) => {
  const body = (view: VolumeView) => volumeBody(view, subject.urisOf(view.name));
  const { volumes } = subject;
  return HttpApiBuilder.group(varveApi, "volumes", (handlers) =>
    handlers
      .handle("list", () => Effect.sync(() => volumes.list().map(body)))
      .handleRaw("create", ({ request }) =>
        answered(
          Effect.gen(function* () {
            const wanted = yield* readBody(request, bodies.CreateVolume);
            const view = yield* fromPort("create a volume", async () =>
              volumes.create({
                name: wanted.name,
                sizeBytes: sizeOf(wanted.size),
                durability: wanted.durability ?? "write",
              }),
            );
            return HttpServerResponse.jsonUnsafe(body(view), { status: 201 });
          }),
        ),
      )
      .handle("show", ({ params }) =>
        answered(fromPort("show a volume", async () => body(volumes.show(params.name)))),
      )
      .handleRaw("set", ({ params, request }) =>
        answered(
          Effect.gen(function* () {
            const { durability } = yield* readBody(request, bodies.SetVolume);
            return body(
              yield* fromPort("set a volume", async () => volumes.setDurability(params.name, durability)),
            );
          }),
        ),
      )
      .handle("delete", ({ params }) =>
        answered(fromPort("delete a volume", async () => volumes.delete(params.name))),
      )
      .handleRaw("resize", ({ params, request }) =>
        answered(
          Effect.gen(function* () {
            const { size, shrink } = yield* readBody(request, bodies.ResizeVolume);
            return body(
              yield* fromPort("resize a volume", async () =>
                volumes.resize(params.name, sizeOf(size), shrink ?? false),
              ),
            );
          }),
        ),
      )
      .handle("image", ({ params }) =>
        answered(
          fromPort(`${params.operation} an image`, async () => {
            if (params.operation === "check") return volumes.checkImage(params.name);
            if (params.operation === "adopt") return volumes.adoptImage(params.name);
            return volumes.discardImage(params.name);
          }),
        ),
      ),
  );
};

const serverRoutes = (subject: ApiSubject) =>
  HttpApiBuilder.group(varveApi, "server", (handlers) =>
    handlers
      .handle("connections", () => Effect.sync(() => subject.connections.connections()))
      .handle("status", () =>
        answered(
          fromPort("status", async () => {
            const views = subject.volumes.list();
            return {
              ...(await subject.process()),
              volumes: views.length,
              volumesFailed: views.filter(isDown).map((view) => view.name),
              connections: subject.connections.connections().length,
            };
          }),
        ),
      )
      .handle("healthz", () => Effect.succeed("ok\n"))
      .handle("readyz", () => Effect.succeed("ready\n"))
      .handle("metrics", () =>
        Effect.sync(() => metricsText(subject.volumes.list(), subject.connections, process.memoryUsage())),
      ),
  );

const isDown = (view: VolumeView): boolean => view.condition === "failed" || view.condition === "halted";

/** Every route of the API, and /openapi.json. */
export const apiRoutes = (subject: ApiSubject) =>
  HttpApiBuilder.layer(varveApi, { openapiPath: "/openapi.json" }).pipe(
    Layer.provide([volumeRoutes(subject), serverRoutes(subject)]),
  );
