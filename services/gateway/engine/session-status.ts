/*
 * What an open volume says of itself, for views, metrics and tests. Made by volume-session.ts.
 */
import type { VarveError } from "#shared/domain/errors.ts";
import type { ReplicaState } from "#shared/ports/replica-image.ts";
import type { Durability, LogState } from "#shared/ports/write-log.ts";

export interface VolumeSessionStatus {
  readonly name: string;
  readonly state: "serving" | "halted" | "closed";
  readonly error: VarveError | null;
  readonly durability: Durability;
  readonly attachedClients: number;
  readonly log: LogState;
  readonly image: ReplicaState;
  readonly overlayRanges: number;
  readonly counters: Readonly<Record<string, number>>;
}
