// The words of the block checker: an operation on the disk, a part of a unit with what may be in it, and a finding.
// Callers: block-ledger.ts, restart-check.ts, block-checker.ts. Pure.

/** acknowledged: durability `write`, or any mode after a mere process kill. flushed: FLUSH and FUA only. */
export type Survives = "acknowledged" | "flushed";
/** found: bytes that fitted no operation when they were read after a restart, and were reported then. */
export type EffectKind = "write" | "zero" | "trim" | "never written" | "found";

export interface Operation {
  readonly sequence: number;
  readonly kind: EffectKind;
  readonly from: number;
  readonly to: number;
  readonly fua: boolean;
  readonly issuedAt: number;
  ackedAt: number;
  /** Of kind found: bytes [from, to). */
  readonly content?: Buffer;
}

export interface Finding {
  readonly kind: "stale" | "lost" | "torn" | "misplaced" | "foreign" | "garbage" | "not a prefix";
  readonly offset: number;
  readonly length: number;
  readonly detail: string;
}

export interface Segment {
  readonly unit: number;
  readonly from: number;
  readonly to: number;
  readonly candidates: readonly Operation[];
  readonly matching: readonly Operation[];
  /** What was there, where it fits no candidate. */
  readonly unknown?: Buffer;
}

/** True where an operation that must be there came wholly after this one. */
export function overtaken(
  operation: Operation,
  candidates: readonly Operation[],
  must: (operation: Operation) => boolean,
): boolean {
  return candidates.some((later) => later !== operation && operation.ackedAt < later.issuedAt && must(later));
}
