/*
 * The handlers of the HTTP API: each turns a request into one call of a port and the answer into JSON. A failure of a port
 * is answered with its body and status from here (shared/api/error-body.ts). layer.ts puts the guard and the server
 * around them.
 */
import * as Effect from "effect/Effect";
import * as HttpServerResponse from "effect/http/HttpServerResponse";
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder";
import * as Layer from "effect/Layer";
import { type ApiOrders, bodies, varveApi } from "#shared/api/http-api.ts";
import { policyFrom } from "#shared/api/past-body.ts";
import { ordersFrom, volumeBody } from "#shared/api/volume-body.ts";
import { byteSizeFrom } from "#shared/domain/byte-size.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { VolumeView } from "#shared/ports/volume-administration.ts";
import { fromPort } from "#shared/shell/run-process.ts";
import { answered } from "./answered.ts";
import type { ApiSubject } from "./api-subject.ts";
import { bucketRoutes } from "./bucket-routes.ts";
import { clusterRoutes, notACluster } from "./cluster-routes.ts";
import { metricsText } from "./metrics.ts";
import { jobRoutes, pastRoutes } from "./past-routes.ts";
import { replicaRoutes } from "./replica-routes.ts";
import { readBody } from "./request-body.ts";

const sizeOf = (size: string | number): number =>
  typeof size === "number" ? size : byteSizeFrom(size, "size");

const volumeRoutes = (subject: ApiSubject) => {
  const body = (view: VolumeView) => volumeBody(view, subject.urisOf(view.name));
  const { volumes } = subject;
  const create = async (wanted: typeof bodies.CreateVolume.Type): Promise<VolumeView> => {
    const { name, replicas = 1, reads } = wanted;
    if (replicas !== 1 && subject.cluster === undefined) throw notACluster();
    requireOneMachines(subject, wanted);
    const durability = wanted.durability ?? "write";
    const policy = policyFrom(wanted);
    const orders = { ...ordersFrom(wanted), lab: wanted.lab ?? null };
    return await volumes.create({
      name,
      sizeBytes: sizeOf(wanted.size),
      durability,
      reads,
      replicas,
      policy,
      orders,
    });
  };
  return HttpApiBuilder.group(varveApi, "volumes", (handlers) =>
    handlers
      .handle("list", () => Effect.sync(() => volumes.list().map(body)))
      .handleRaw("create", ({ request }) =>
        answered(
          Effect.gen(function* () {
            const wanted = yield* readBody(request, bodies.CreateVolume);
            const view = yield* fromPort("create a volume", async () => create(wanted));
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
            const wanted = yield* readBody(request, bodies.SetVolume);
            return body(yield* fromPort("set a volume", async () => setVolume(subject, params.name, wanted)));
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

/** What can be refused while a client is attached comes first, so that a refusal changes nothing. */
async function setVolume(
  subject: ApiSubject,
  name: string,
  wanted: typeof bodies.SetVolume.Type,
): Promise<VolumeView> {
  const { volumes, past } = subject;
  const policy = policyFrom(wanted);
  const orders = ordersFrom(wanted);
  const { durability, reads } = wanted;
  const others = Object.keys(policy).length > 0;
  const ordered = Object.keys(orders).length > 0;
  if (durability === undefined && reads === undefined && !others && !ordered) throw nothingToSet();
  requireOneMachines(subject, wanted);
  if (durability !== undefined) await volumes.setDurability(name, durability);
  if (reads !== undefined) await volumes.setReads(name, reads);
  if (ordered) await volumes.setOrders(name, orders);
  return others ? await past.setPolicy(name, policy) : volumes.show(name);
}

/** One machine has no pools and no servers that its log could have copies on. */
function requireOneMachines({ cluster }: ApiSubject, { tags, logReplicas }: ApiOrders): void {
  if (cluster !== undefined) return;
  if ((tags ?? []).length > 0 || (logReplicas ?? null) !== null) throw notACluster();
}

function nothingToSet(): VarveError {
  return new VarveError("RequestBodyError", "Invalid", "the request body is wrong: it sets nothing", {
    hint: "Give durability, reads, history, residency, coldAfter, bucketAway, tags, logReplicas or schedules. Nothing was changed.",
  });
}

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
        Effect.sync(() =>
          metricsText(
            subject.volumes.list(),
            subject.connections,
            process.memoryUsage(),
            subject.bucket()?.requests() ?? {},
          ),
        ),
      ),
  );

const isDown = (view: VolumeView): boolean => view.condition === "failed" || view.condition === "halted";

/** Every route of the API, and /openapi.json. */
export const apiRoutes = (subject: ApiSubject) =>
  HttpApiBuilder.layer(varveApi, { openapiPath: "/openapi.json" }).pipe(
    Layer.provide([
      volumeRoutes(subject),
      pastRoutes(subject),
      jobRoutes(subject),
      bucketRoutes(subject),
      clusterRoutes(subject),
      replicaRoutes(subject),
      serverRoutes(subject),
    ]),
  );
