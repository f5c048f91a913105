/*
 * A place in the code where a crash test may end the process (docs/specs/archive.md#failpoints). In production it does nothing;
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

export type Failpoint = (name: FailpointName) => void;
