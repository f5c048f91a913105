/*
 * Handlers of the HTTP API for several machines: each turns a request into one call of ClusterAdministration. routes.ts joins them
 * with the others. A server of one machine refuses them.
 */
import * as Effect from "effect/Effect";
import * as HttpServerResponse from "effect/http/HttpServerResponse";
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder";
import { type ApiNode, type ApiReplica, clusterBodies } from "#shared/api/cluster-api.ts";
import { varveApi } from "#shared/api/http-api.ts";
import { byteSizeFrom } from "#shared/domain/byte-size.ts";
import type { PoolOrder } from "#shared/domain/cluster.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { ArrivalAdministration } from "#shared/ports/arrival-administration.ts";
import type { ClusterAdministration, NodeView, ReplicaView } from "#shared/ports/cluster-administration.ts";
import { fromPort } from "#shared/shell/run-process.ts";
import { answered } from "./answered.ts";
import type { ApiSubject } from "./api-subject.ts";
import { readBody } from "./request-body.ts";

export const clusterRoutes = (subject: ApiSubject) => {
  const cluster = (): ClusterAdministration => {
    if (subject.cluster !== undefined) return subject.cluster;
    throw notACluster();
  };
  const arrivals = (): ArrivalAdministration => {
    if (subject.arrivals !== undefined) return subject.arrivals;
    throw notACluster();
  };
  return HttpApiBuilder.group(varveApi, "cluster", (handlers) =>
    handlers
      .handle("nodes", () => answered(fromPort("list nodes", async () => cluster().nodes().map(nodeBody))))
      .handleRaw("setPools", ({ params, request }) =>
        answered(
          Effect.gen(function* () {
            const wanted = yield* readBody(request, clusterBodies.SetPools);
            const node = yield* fromPort("set pools", async () =>
              cluster().setPools(params.node, wanted.pools.map(poolOrder)),
            );
            return HttpServerResponse.jsonUnsafe(nodeBody(node));
          }),
        ),
      )
      .handle("replicas", () =>
        answered(fromPort("list replicas", async () => cluster().replicas(null).map(replicaBody))),
      )
      .handle("attachments", () =>
        answered(fromPort("list attachments", async () => cluster().attachments())),
      )
      .handle("takeover", ({ params }) =>
        answered(fromPort("take a volume over", async () => cluster().takeover(params.name))),
      )
      .handleRaw("arrive", ({ params, request }) =>
        answered(
          Effect.gen(function* () {
            const {
              size,
              replicas = 1,
              reads = "available",
              ...rest
            } = yield* readBody(request, clusterBodies.Arrive);
            const sizeBytes = typeof size === "string" ? byteSizeFrom(size, "size") : size;
            const volume = { ...rest, ...params, sizeBytes, replicas, reads };
            const arrival = yield* fromPort("begin a move", async () => arrivals().arrive(volume));
            return HttpServerResponse.jsonUnsafe(arrival);
          }),
        ),
      )
      .handleRaw("arrived", ({ params, request }) =>
        answered(
          Effect.gen(function* () {
            const { volumeId } = yield* readBody(request, clusterBodies.Arrived);
            const arrival = yield* fromPort("end a move", async () =>
              arrivals().arrived(params.name, volumeId),
            );
            return HttpServerResponse.jsonUnsafe(arrival);
          }),
        ),
      ),
  );
};

function nodeBody({ renewal: _renewal, ...node }: NodeView): ApiNode {
  return node;
}

function poolOrder({ name, quota, tags }: (typeof clusterBodies.SetPools.Type)["pools"][number]): PoolOrder {
  const bytes = typeof quota === "string" ? byteSizeFrom(quota, "quota") : quota;
  return { name, quotaBytes: bytes === undefined ? null : (bytes ?? 0), tags: tags ?? null };
}

function replicaBody({ volume, node, pool, leaving, report }: ReplicaView): ApiReplica {
  return {
    volume,
    node,
    pool,
    leaving,
    condition: report?.condition ?? "silent",
    reason: report?.reason ?? "",
    appliedLsn: report?.appliedLsn ?? 0,
    checkpointLsn: report?.checkpointLsn ?? 0,
    epoch: report?.epoch ?? 0,
    allocatedBytes: report?.allocatedBytes ?? 0,
  };
}

export function notACluster(): VarveError {
  return new VarveError("NotAClusterError", "Invalid", "this server is one machine, not a cluster", {
    hint: "Nodes, replicas and takeovers are asked of a varve api process: --api URL. Nothing was changed.",
  });
}
