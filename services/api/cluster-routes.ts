/*
 * Handlers of the HTTP API for several machines: each turns a request into one call of ClusterAdministration. routes.ts joins them
 * with the others. A server of one machine refuses them.
 */
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder";
import type { ApiReplica } from "#shared/api/cluster-api.ts";
import { varveApi } from "#shared/api/http-api.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { ClusterAdministration, ReplicaView } from "#shared/ports/cluster-administration.ts";
import { fromPort } from "#shared/shell/run-process.ts";
import { answered } from "./answered.ts";
import type { ApiSubject } from "./api-subject.ts";

export const clusterRoutes = (subject: ApiSubject) => {
  const cluster = (): ClusterAdministration => {
    if (subject.cluster !== undefined) return subject.cluster;
    throw notACluster();
  };
  return HttpApiBuilder.group(varveApi, "cluster", (handlers) =>
    handlers
      .handle("nodes", () =>
        answered(
          fromPort("list nodes", async () =>
            cluster()
              .nodes()
              .map(({ renewal: _renewal, ...node }) => node),
          ),
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
      ),
  );
};

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
