/*
 * Liveness and readiness of a process over HTTP, for supervisors and compose: /healthz answers while the event loop runs, /readyz
 * says 200 when the process does its work and 503 with what is missing, both in JSON; /metrics has its figures for Prometheus. Opened first and closed last by the
 * processes of a cluster (services/cli/commands/).
 */
import { createServer, type Server } from "node:http";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { VarveError } from "#shared/domain/errors.ts";
import type { HttpAddress } from "./cluster-config.ts";
import { healthMetrics } from "./health-metrics.ts";
import { listenError } from "./listen-error.ts";
import { scopedPort } from "./run-process.ts";

export interface Readiness {
  readonly ready: boolean;
  /** What is missing, one line each; [] when ready. */
  readonly missing: readonly string[];
  /** What stopped beside work that goes on, one line each. */
  readonly degraded?: readonly string[];
  /** Figures of the process. */
  readonly detail: Readonly<Record<string, unknown>>;
}

const requestMs = 5000;

export const serveHealth = (
  address: HttpAddress | null,
  readiness: () => Readiness,
): Effect.Effect<void, VarveError, Scope.Scope> =>
  address === null
    ? Effect.void
    : Effect.asVoid(scopedPort("listen for health checks", async () => listen(address, readiness), close));

async function listen(address: HttpAddress, readiness: () => Readiness): Promise<Server> {
  const server = createServer(
    { headersTimeout: requestMs, requestTimeout: requestMs },
    ({ method, url }, response) => {
      const answer = (status: number, body: unknown): void => {
        response.writeHead(status, { "content-type": "application/json", "cache-control": "no-store" });
        response.end(`${JSON.stringify(body)}\n`);
      };
      if (method !== "GET" && method !== "HEAD") return answer(405, { error: "only GET" });
      if (url === "/healthz") return answer(200, { alive: true });
      const state = readiness();
      if (url === "/metrics") {
        response.writeHead(200, { "content-type": "text/plain; version=0.0.4", "cache-control": "no-store" });
        response.end(healthMetrics(state));
        return;
      }
      if (url !== "/readyz") return answer(404, { error: "only /healthz, /readyz and /metrics" });
      return answer(state.ready ? 200 : 503, state);
    },
  );
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause) => reject(listenError("--health", address, cause)));
    server.listen({ host: address.host, port: address.port }, resolve);
  });
  return server;
}

async function close(server: Server): Promise<void> {
  await new Promise<void>((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
