/*
 * Says whether this node can open its volume as it was at an LSN from the bucket, before a rollback makes all of it depend on that
 * (docs/specs/cluster.md#rollback). Called by replica-answers.ts, whether its replica is open or not; next: the reader of the past.
 */
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { encodeMessage } from "#shared/formats/replica-message.ts";
import type { ArchivedImages } from "#shared/ports/archived-images.ts";

export interface ReachParts {
  readonly node: string;
  readonly record: { readonly id: string };
  readonly archived: Pick<ArchivedImages, "point"> | null;
}

export async function answerReach(lsn: number, { node, record, archived }: ReachParts): Promise<Uint8Array> {
  try {
    if (archived === null) throw noBucket(node);
    const source = await archived.point(record.id, lsn);
    await source.close();
    return encodeMessage({ type: "reached", lsn });
  } catch (cause) {
    const { kind, _tag, message } = toVarveError(cause, "open the point");
    return encodeMessage({ type: "refused", kind, tag: _tag, message, epoch: 0 });
  }
}

export function noBucket(node: string): VarveError {
  return new VarveError("FillNoBucket", "Invalid", `${node} was given no bucket to fill replicas from`, {
    hint: "Start it with the archivers' bucket: --bucket URL.",
    fields: { node },
  });
}
