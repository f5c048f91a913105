/*
 * Handlers of the HTTP API that change where replicas are: each turns a request into one call of ReplicaAdministration. routes.ts joins
 * them with the others. A server of one machine refuses them.
 */

import * as Effect from "effect/Effect";
import * as HttpServerResponse from "effect/http/HttpServerResponse";
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder";
import { varveApi } from "#shared/api/http-api.ts";
import { replicaBodies } from "#shared/api/replica-api.ts";
import { byteSizeFrom } from "#shared/domain/byte-size.ts";
import type { ReplicaAdministration } from "#shared/ports/cluster-administration.ts";
import { fromPort } from "#shared/shell/run-process.ts";
import { answered } from "./answered.ts";
import type { ApiSubject } from "./api-subject.ts";
import { notACluster } from "./cluster-routes.ts";
import { readBody } from "./request-body.ts";

const rateOf = (rate: string | number | undefined): number | null => {
  if (rate === undefined) return null;
  return typeof rate === "number" ? rate : byteSizeFrom(rate, "rate");
};

export const replicaRoutes = (subject: ApiSubject) => {
  const admin = (): ReplicaAdministration => {
    if (subject.replicas !== undefined) return subject.replicas;
    throw notACluster();
  };
  const done = (what: string, work: () => Promise<void>) => answered(fromPort(what, work));
  return HttpApiBuilder.group(varveApi, "replicas", (handlers) =>
    handlers
      .handleRaw("add", ({ params, request }) =>
        answered(
          Effect.gen(function* () {
            const { node, fillFrom } = yield* readBody(request, replicaBodies.AddReplica);
            const place = yield* fromPort("add a replica", async () =>
              admin().add(params.name, node ?? null, fillFrom ?? null),
            );
            return HttpServerResponse.jsonUnsafe(place);
          }),
        ),
      )
      .handle("remove", ({ params }) =>
        done("remove a replica", async () => admin().remove(params.name, params.node)),
      )
      .handleRaw("move", ({ params, request }) =>
        answered(
          Effect.gen(function* () {
            const { from, to } = yield* readBody(request, replicaBodies.MoveReplica);
            const place = yield* fromPort("move a replica", async () =>
              admin().move(params.name, from, to ?? null),
            );
            return HttpServerResponse.jsonUnsafe(place);
          }),
        ),
      )
      .handle("repair", ({ params, query }) =>
        done("repair a replica", async () =>
          admin().repair(params.name, params.node, query.fillFrom ?? null),
        ),
      )
      .handleRaw("verify", ({ params, request }) =>
        answered(
          Effect.gen(function* () {
            const { offset, rate } = yield* readBody(request, replicaBodies.CompareReplicas);
            const found = yield* fromPort("compare replicas", async () =>
              admin().verify(params.name, offset ?? 0, rateOf(rate)),
            );
            return HttpServerResponse.jsonUnsafe(found);
          }),
        ),
      )
      .handle("drain", ({ params }) => done("drain a node", async () => admin().drain(params.node)))
      .handle("undrain", ({ params }) => done("undrain a node", async () => admin().undrain(params.node))),
  );
};
