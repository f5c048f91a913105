/*
 * The api writes to a volume's log itself, while no gateway serves it: whoever serves it gives it up, the lease is taken, the log is opened
 * under an epoch of its own, and one batch is appended. Used by cluster-rollback.ts and cluster-shrink.ts. docs/specs/cluster.md#rollback.
 */
import { BatchDraft } from "#shared/domain/batch-draft.ts";
import { volumeHolderSubject } from "#shared/domain/cluster-subjects.ts";
import { toVarveError, VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { decodeMessage, encodeMessage, isBadMessage } from "#shared/formats/replica-message.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { Lease, Leases } from "#shared/ports/lease.ts";
import type { LogFollower } from "#shared/ports/log-follower.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { VolumeCatalog } from "#shared/ports/volume-catalog.ts";
import type { WriteLog } from "#shared/ports/write-log.ts";
import { openLeased } from "./leased-log.ts";
import { stillHeld, toldByHolder, volumeGone } from "./rollback-errors.ts";

export interface VolumeWritingParts {
  /** Who writes, for the epoch entry. */
  readonly writer: string;
  readonly catalog: Pick<VolumeCatalog, "fetch">;
  readonly leases: Pick<Leases, "view" | "take">;
  readonly bus: Pick<MessageBus, "request">;
  readonly clock: Clock;
  readonly logOf: (volumeId: string) => Pick<LogFollower, "end">;
  /** The volume's log, not open yet, with the size and copies that it has. */
  readonly openLog: (volumeId: string) => Promise<WriteLog>;
  readonly allocateSlab: (bytes: number) => Slab;
}

/** What it is done for. */
export interface WritingPurpose {
  /** Stands in the lease, for who attaches meanwhile. */
  readonly holder: string;
  /** What does not happen while clients are attached, for them. */
  readonly refused: string;
  /** Clients are cut off. */
  readonly isForced: boolean;
}

export interface LogAddition {
  /** Adds the entries. */
  readonly fill: (draft: BatchDraft) => void;
  /** The log was never opened. */
  readonly missing: () => VarveError;
  /** No answer came: the entries may be there. */
  readonly unknown: (cause: VarveError) => VarveError;
}

/** Sessions close within it; one that does not is asked again. */
const yieldMs = 10_000;
/** A durable append takes milliseconds; servers that elect a leader, ten seconds. */
const appendMs = 30_000;
/** Clients that come back between two looks. */
const attemptsMax = 5;

export class VolumeWriting {
  readonly #parts: VolumeWritingParts;

  constructor(parts: VolumeWritingParts) {
    this.#parts = parts;
  }

  /** Resolves with how many clients were cut off. A gateway that does not answer is dead, and its lease runs out, or take() says that it lives. */
  async freed({ id, name }: VolumeRecord, { isForced, refused }: WritingPurpose): Promise<number> {
    const { leases, bus } = this.#parts;
    if (leases.view(`volume.${id}`)?.state !== "held") return 0;
    const request = encodeMessage({ type: "yield", isForced });
    const data = await bus.request(volumeHolderSubject(id), request, yieldMs).catch((cause: unknown) => {
      if (toVarveError(cause, "ask the gateway").kind !== "Retry") throw cause;
      return null;
    });
    const decoded = data === null ? null : decodeMessage(data);
    if (decoded === null || isBadMessage(decoded)) return 0;
    const { message } = decoded;
    if (message.type === "refused" && message.kind !== "Retry") throw toldByHolder(name, message, refused);
    return message.type === "yielded" ? message.disconnected : 0;
  }

  /**
   * No gateway can serve the volume while it is appended; one that thinks it does is fenced by the epoch. Resolves with the last entry's LSN
   * when it is durable, and with how many clients were cut off.
   */
  async append(
    record: VolumeRecord,
    purpose: WritingPurpose,
    addition: LogAddition,
  ): Promise<{ readonly lsn: number; readonly disconnected: number }> {
    const { leases, catalog } = this.#parts;
    let disconnected = 0;
    let lease: Lease | null = null;
    for (let attempt = 1; lease === null; attempt += 1) {
      disconnected += await this.freed(record, purpose);
      // A client that came between the two opened it again.
      lease = await leases
        .take(`volume.${record.id}`, { holder: purpose.holder, address: "" })
        .catch((cause: unknown) => {
          const error = toVarveError(cause, "take the lease");
          if (error._tag !== "LeaseHeldError") throw error;
          if (attempt === attemptsMax) throw stillHeld(record.name, error);
          return null;
        });
    }
    try {
      const stored = await catalog.fetch(record.id);
      if (stored?.state !== "active") throw volumeGone(record.name);
      return { lsn: await this.#append(record.id, lease, addition), disconnected };
    } finally {
      await lease.release();
    }
  }

  async #append(id: string, lease: Lease, { fill, missing, unknown }: LogAddition): Promise<number> {
    const { logOf, openLog, allocateSlab, clock, writer: who } = this.#parts;
    const end = await logOf(id).end();
    if (end === null) throw missing();
    const log = await openLog(id);
    try {
      const writer = await openLeased(log, lease, { writer: who, knownLsn: end.lastLsn });
      const draft = new BatchDraft(allocateSlab(limits.batchHeaderBytesMax + limits.blockBytes));
      fill(draft);
      writer.append(draft);
      writer.pump(false);
      await within(clock, writer.sync()).catch((cause: unknown) => {
        throw unknown(toVarveError(cause, "append"));
      });
      return draft.lastLsn;
    } finally {
      await log.close().catch(() => undefined); // what it holds is durable, or said to be unknown
    }
  }
}

async function within(clock: Clock, work: Promise<void>): Promise<void> {
  let cancel = (): void => undefined;
  const late = new Promise<never>((_resolve, reject) => {
    const timer = clock.after(appendMs, () => {
      reject(new VarveError("LogAway", "Retry", "the log did not answer in time"));
    });
    cancel = () => timer.cancel();
  });
  await Promise.race([work, late]).finally(() => cancel());
}
