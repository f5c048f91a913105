/*
 * A place in the code where a crash test may end or stop the process (docs/specs/archive.md#failpoints). In production it does nothing;
 * shared/shell/failpoint.ts makes the real one from the environment, unit tests pass their own.
 */

/** Append and evict belong to the data path and residency, the rest to the bucket. */
export type FailpointName =
  | "append"
  | "evict"
  | "seal"
  | "upload"
  | "publish"
  | "base"
  | "release"
  | "collect";

/** Steps of a gateway that takes a volume over, in order (docs/specs/cluster.md#steps-of-a-takeover). */
export const takeoverSteps = [
  "takeover-lease",
  "takeover-heard",
  "takeover-looked",
  "takeover-moved",
  "takeover-again",
  "takeover-entry",
  "takeover-serve",
] as const;
export type TakeoverStep = (typeof takeoverSteps)[number];

/** Steps of a move into a cluster, in order (docs/specs/move-into-cluster.md); `move-copying` is passed after each piece. */
export const moveSteps = [
  "move-arriving",
  "move-copying",
  "move-copied",
  "move-marked",
  "move-served",
] as const;
export type MoveStep = (typeof moveSteps)[number];

/** What the api did of an undelete in a cluster, in order (docs/specs/cluster.md#undelete). */
export const undeleteSteps = [
  "undelete-record",
  "undelete-line",
  "undelete-taken",
  "undelete-log",
  "undelete-placed",
  "undelete-active",
] as const;
export type UndeleteStep = (typeof undeleteSteps)[number];

export type Failpoint = (name: FailpointName) => void;
export type TakeoverFailpoint = (step: TakeoverStep) => void;
