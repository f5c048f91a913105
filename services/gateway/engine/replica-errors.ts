/*
 * What a gateway says of replicas that answer nothing, or nothing that is one. Thrown by remote-replica.ts.
 */
import { VarveError } from "#shared/domain/errors.ts";
import type { ReplicaReport } from "#shared/domain/replica-report.ts";

export function badAnswer(node: string, detail: string): VarveError {
  return new VarveError("ReplicaAnswerError", "Retry", `${node} gave an answer that is none: ${detail}`);
}

export function noReplica(
  volumeId: string,
  cause: VarveError | null,
  reports: readonly ReplicaReport[] = [],
): VarveError {
  const states = reports.map((one) => `${one.node} is ${one.condition} at LSN ${one.appliedLsn}`);
  const why = cause?.message ?? (states.length === 0 ? "none was heard of" : states.join("; "));
  return new VarveError("NoReplicaError", "Retry", `no replica of volume ${volumeId} answers: ${why}`, {
    hint: "Look whether its storage nodes run and reach NATS: varve node list.",
    fields: { volumeId },
    cause: cause ?? undefined,
  });
}

export function replicaFenced(epoch: number, own: number): VarveError {
  return new VarveError(
    "ReplicaFenced",
    "Fenced",
    `a newer writer (epoch ${epoch}) writes this volume; this one has epoch ${own}`,
    { hint: "Connect again: another gateway serves the volume now.", fields: { epoch, own } },
  );
}
