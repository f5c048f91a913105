/*
 * Asks a volume's storage nodes whether they can open a point of it from the bucket, before a rollback makes all of the disk depend on that.
 * Called by cluster-rollback.ts; answered by services/storage/engine/replica-reach.ts. docs/specs/cluster.md#rollback.
 */
import { replicaCopySubject } from "#shared/domain/cluster-subjects.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { decodeMessage, encodeMessage, isBadMessage } from "#shared/formats/replica-message.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";

const reachMs = 15_000;

/** Rejects NoNodeReadsPoint where none of them can. */
export async function requireReader(
  { bus, nodes }: { readonly bus: MessageBus; readonly nodes: readonly string[] },
  { id, name }: VolumeRecord,
  lsn: number,
): Promise<void> {
  const failures = await Promise.all(
    nodes.map(async (node) => {
      const request = encodeMessage({ type: "reach", lsn });
      const answer = await bus.request(replicaCopySubject(id, node), request, reachMs).then(
        (data) => decodeMessage(data),
        (cause: unknown) => toVarveError(cause, "ask a storage node").message,
      );
      if (typeof answer === "string") return `${node}: ${answer}`;
      if (isBadMessage(answer)) return `${node}: ${answer.detail}`;
      const { message } = answer;
      if (message.type === "reached") return null;
      return message.type === "refused" ? message.message : `${node} answers with ${message.type}`;
    }),
  );
  if (failures.includes(null)) return;
  throw new VarveError(
    "NoNodeReadsPoint",
    "Retry",
    `no storage node of volume ${name} reads entry ${lsn} from the bucket: ${failures.join("; ")}`,
    {
      hint: "Start its storage nodes with the archivers' bucket, --bucket URL, and look whether they reach it. The disk was not changed.",
      fields: { name, lsn },
    },
  );
}
