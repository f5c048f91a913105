/*
 * The errors of the JetStream log beside those that every log gives (log-errors.ts), and the one place where what client and
 * server report becomes an error kind. Never by message text: by class and by the server's error number.
 */
import { JetStreamApiError } from "@nats-io/jetstream";
import { errors } from "@nats-io/transport-node";
import { VarveError } from "#shared/domain/errors.ts";

/** Numbers of the server's JSApiError list that say something to us. */
const apiCode = {
  wrongSequence: 10071,
  wrongSequenceUnknown: 10164,
  storeFailed: 10077,
  noStorage: 10047,
  noResources: 10023,
  noMemory: 10028,
  streamNotFound: 10059,
  notEnabled: 10039,
  notEnabledHere: 10076,
  noPeers: 10005,
  leaderless: 10009,
  clusterNotAvailable: 10008,
} as const;

/** Why a publish was not answered with a sequence. Only noAnswer leaves open whether the message was stored. */
export type PublishFault = "wrongSequence" | "noResponder" | "noAnswer" | "noSpace" | "refused";

export interface PublishFailure {
  readonly fault: PublishFault;
  readonly error: VarveError;
}

export function publishFailure(stream: string, cause: unknown): PublishFailure {
  const error = apiError(stream, "append", cause);
  if (cause instanceof JetStreamApiError) {
    if (cause.code === apiCode.wrongSequence || cause.code === apiCode.wrongSequenceUnknown) {
      return { fault: "wrongSequence", error };
    }
    return { fault: error.kind === "Full" ? "noSpace" : "refused", error };
  }
  return { fault: isNoResponder(cause) ? "noResponder" : "noAnswer", error };
}

export function isStreamMissing(cause: unknown): boolean {
  return cause instanceof JetStreamApiError && cause.code === apiCode.streamNotFound;
}

/** The client says "JetStream is not enabled" where nobody answers; the cause tells. */
function isNoResponder(cause: unknown): boolean {
  const inner = cause instanceof Error && cause.cause !== undefined ? cause.cause : cause;
  return (
    inner instanceof errors.NoRespondersError ||
    (inner instanceof errors.RequestError && inner.isNoResponders())
  );
}

/** What went wrong between us and JetStream: Retry where waiting helps, Full where disks or limits are, else what must be changed. */
export function apiError(stream: string, operation: string, cause: unknown): VarveError {
  if (cause instanceof VarveError) return cause;
  const inner = cause instanceof Error && cause.cause instanceof JetStreamApiError ? cause.cause : cause;
  if (inner instanceof JetStreamApiError) return answeredError(stream, operation, inner);
  return new VarveError("LogAway", "Retry", `${operation} on ${stream}: JetStream gave no answer`, {
    hint: "No server answers, or the stream has no leader now. Varve goes on by itself when they are back; look at the servers.",
    fields: { stream, operation },
    cause,
  });
}

function answeredError(stream: string, operation: string, cause: JetStreamApiError): VarveError {
  const fields = { stream, operation, code: cause.code };
  const said = `${operation} on ${stream}: ${cause.message} (${cause.code})`;
  switch (cause.code) {
    case apiCode.storeFailed:
    case apiCode.noStorage:
    case apiCode.noResources:
    case apiCode.noMemory:
      return new VarveError("LogServersFull", "Full", said, {
        hint: "The servers' disks or JetStream limits are full. Make room or raise max_file_store; writes go on by themselves then.",
        fields,
        cause,
      });
    case apiCode.noPeers:
      return new VarveError("LogAway", "Retry", said, {
        hint: "Start as many servers as the log has replicas; one that is down counts only when it is back.",
        fields,
        cause,
      });
    case apiCode.notEnabled:
      return new VarveError("LogRefused", "Invalid", said, {
        hint: "Enable JetStream for the account that Varve connects to.",
        fields,
        cause,
      });
    case apiCode.notEnabledHere:
    case apiCode.leaderless:
    case apiCode.clusterNotAvailable:
    default:
      return new VarveError("LogAway", cause.status >= 500 ? "Retry" : "Internal", said, {
        hint: "Look at the servers' own logs. Varve tries again where that can help.",
        fields,
        cause,
      });
  }
}

export function damagedMessage(stream: string, sequence: number, what: string): VarveError {
  return new VarveError(
    "LogDamaged",
    "Corrupt",
    `message ${sequence} of ${stream} is not what was written: ${what}`,
    {
      hint: "Nothing was changed. A server's store is damaged, or something else wrote into the stream. Replicas keep what they applied.",
      fields: { stream, sequence },
    },
  );
}

export function missingStream(stream: string, knownLsn: number): VarveError {
  return new VarveError(
    "LogMissing",
    "Corrupt",
    `there is no stream ${stream}, but LSN ${knownLsn} was applied to the image`,
    {
      hint: "The stream was deleted, or these are other servers. Nothing was changed. Bring the right servers back, or `varve rescue`.",
      fields: { stream, knownLsn },
    },
  );
}

export function lostEntries(stream: string, foundLsn: number, durableLsn: number): VarveError {
  return new VarveError(
    "LogLostEntries",
    "Corrupt",
    `${stream} ends at LSN ${foundLsn}, but LSN ${durableLsn} was acknowledged by its servers`,
    {
      hint: "The servers lost what they had promised. Check `sync_interval: always` on all of them. Replicas may have more: keep them.",
      fields: { stream, foundLsn, durableLsn },
    },
  );
}

export function wrongSettings(stream: string, mistakes: readonly string[]): VarveError {
  return new VarveError("LogSettings", "Invalid", `stream ${stream} can't be a log: ${mistakes.join("; ")}`, {
    hint: "Something else changed or made this stream. Set it back with `nats stream edit`; nothing was written.",
    fields: { stream },
  });
}

export function wrongServers(mistakes: readonly string[]): VarveError {
  return new VarveError(
    "LogServers",
    "Invalid",
    `the NATS servers can't hold a log: ${mistakes.join("; ")}`,
    {
      hint: "Acknowledged writes would be lost with the power. Nothing was written. See docs/specs/jetstream-log.md, Servers.",
      fields: {},
    },
  );
}

export function smallServers(payloadBytes: number): VarveError {
  return new VarveError(
    "LogServers",
    "Invalid",
    `the NATS server takes messages of ${payloadBytes} bytes, too few for a log`,
    {
      hint: "Set max_payload to 1MB, its default, on every server.",
      fields: { payloadBytes },
    },
  );
}

export function fencedByEpoch(stream: string, epoch: number, found: number): VarveError {
  return new VarveError(
    "LogFenced",
    "Fenced",
    `epoch ${found} was begun in ${stream}; epoch ${epoch} is over`,
    {
      hint: "A newer writer has the volume. Nothing more is appended by this one. Reconnect to reach the new one.",
      fields: { stream, epoch: found, own: epoch },
    },
  );
}

export function leaseGone(stream: string, epoch: number): VarveError {
  return new VarveError("LogFenced", "Fenced", `the lease of epoch ${epoch} of ${stream} is gone`, {
    hint: "Another gateway is taking the volume. Nothing more is appended by this one.",
    fields: { stream, epoch, own: epoch },
  });
}
