/*
 * What the api asks of the gateway that serves a volume: a new size, and the mark of a snapshot, because it alone knows what it has
 * acknowledged; and to give the volume up, for a rollback. Served for as long as the session is open (cluster-layer.ts); entries are
 * appended by the session (volume-session.ts), which cluster-volume.ts closes. docs/specs/cluster.md, "A new size", "Points", "Rollback".
 */
import { readableByteSize } from "#shared/domain/byte-size.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { decodeMessage, encodeMessage, isBadMessage } from "#shared/formats/replica-message.ts";
import type { VolumeSession } from "./volume-session.ts";

/** Null where the message is no call: then nobody is answered. A size that is told again changes nothing more. */
export async function answerHolderCall(
  data: Uint8Array,
  session: Pick<VolumeSession, "sizeBytes" | "resize" | "mark">,
  giveUp: (isForced: boolean) => Promise<number>,
): Promise<Uint8Array | null> {
  const decoded = decodeMessage(data);
  if (isBadMessage(decoded)) return null;
  const { message: call } = decoded;
  if (call.type !== "resize" && call.type !== "mark" && call.type !== "yield") return null;
  try {
    if (call.type === "yield") {
      return encodeMessage({ type: "yielded", disconnected: await giveUp(call.isForced) });
    }
    if (call.type === "mark") return encodeMessage({ type: "marked", lsn: await session.mark(call.name) });
    const { sizeBytes } = call;
    if (sizeBytes < session.sizeBytes) throw wouldShrink(session.sizeBytes);
    if (sizeBytes > session.sizeBytes) await session.resize(sizeBytes);
    return encodeMessage({ type: "resized", sizeBytes });
  } catch (cause) {
    const { kind, _tag: tag, message } = toVarveError(cause, call.type);
    return encodeMessage({ type: "refused", kind, tag, message, epoch: 0 });
  }
}

function wouldShrink(sizeBytes: number): VarveError {
  return new VarveError(
    "ClusterShrinkRefused",
    "Invalid",
    `the volume has ${readableByteSize(sizeBytes)}, and while it is served it only grows`,
  );
}
