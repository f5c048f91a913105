/*
 * What a storage node says of itself at /readyz: it is ready while it reaches NATS and can serve a replica, or has none to serve. One
 * that stopped takes nothing from the others: it is named as `degraded`, and counted for /metrics. Called by node-layer.ts.
 * Spec: docs/specs/cluster.md#start-stop-loss.
 */
import type { ReplicaReport } from "#shared/domain/replica-report.ts";

export interface NodeFacts {
  readonly node: string;
  /** Why NATS is not reached; null: it is. */
  readonly away: string | null;
  readonly replicas: readonly (ReplicaReport & { readonly volume: string })[];
  /** Of replicas that stopped, and of those that could not be placed here: these have no report. `volume` as people call it. */
  readonly failures: readonly { readonly volume: string; readonly error: Error }[];
}

export interface NodeReadiness {
  readonly ready: boolean;
  readonly missing: readonly string[];
  readonly degraded: readonly string[];
  readonly detail: Readonly<Record<string, unknown>>;
}

export function nodeReadiness({ node, away, replicas, failures }: NodeFacts): NodeReadiness {
  const failed = new Set(failures.map(({ volume }) => volume));
  const placed = new Set([...replicas.map(({ volume }) => volume), ...failed]);
  const stopped = failures.map(({ volume, error }) => `the replica of ${volume}: ${error.message}`);
  const servesNone = failed.size > 0 && failed.size === placed.size;
  const missing = [...(away === null ? [] : [away]), ...(servesNone ? stopped : [])];
  const reported = new Set(replicas.map(({ volume }) => volume));
  const shown = [
    ...replicas.map((replica) => ({ ...replica, failed: failed.has(replica.volume) ? 1 : 0 })),
    ...[...failed].filter((volume) => !reported.has(volume)).map((volume) => ({ volume, failed: 1 })),
  ];
  return { ready: missing.length === 0, missing, degraded: stopped, detail: { node, replicas: shown } };
}
