// Judges a whole volume as it is after a crash and restart, in two passes: each segment against what must have survived,
// then all of them together against the prefix promise (the volume is fold(log[1..n]) for one n).
// Made by BlockLedger.restartCheck(), fed by block-checker.ts; the ledger starts its next round from what was found.

import { type Finding, type Operation, overtaken, type Segment } from "./block-operation.ts";

export interface LedgerView {
  survived(operation: Operation): boolean;
  segments(unit: number, bytes: Buffer): Segment[];
  diagnose(segment: Segment, found: Buffer, wholeUnit: Buffer): Finding;
  settle(segments: readonly Segment[]): void;
}

export class RestartCheck {
  private readonly unitBytes: number;
  private readonly view: LedgerView;
  private readonly findings: Finding[] = [];
  private readonly segments: Segment[] = [];

  constructor(unitBytes: number, view: LedgerView) {
    this.unitBytes = unitBytes;
    this.view = view;
  }

  /** Bytes as read; offset and length are multiples of the unit. */
  add(offset: number, bytes: Buffer): void {
    const { unitBytes } = this;
    for (let at = 0; at < bytes.length; at += unitBytes) {
      const whole = bytes.subarray(at, at + unitBytes);
      for (const segment of this.view.segments((offset + at) / unitBytes, whole)) {
        this.segments.push(segment);
        const must = (operation: Operation): boolean => this.view.survived(operation);
        if (segment.matching.some((operation) => !overtaken(operation, segment.candidates, must))) continue;
        this.findings.push(this.view.diagnose(segment, whole.subarray(segment.from, segment.to), whole));
      }
    }
  }

  finish(): Finding[] {
    if (this.findings.length === 0) this.findPrefixBreaks();
    this.view.settle(this.segments);
    return this.findings;
  }

  private findPrefixBreaks(): void {
    const seen = new Set<Operation>();
    let horizon = 0;
    for (const { matching } of this.segments) {
      const only = matching.length === 1 ? matching[0] : undefined;
      if (!only) continue;
      seen.add(only);
      horizon = Math.max(horizon, only.issuedAt);
    }
    const must = (operation: Operation): boolean =>
      operation.ackedAt < horizon || seen.has(operation) || this.view.survived(operation);
    for (const segment of this.segments) {
      if (segment.matching.some((operation) => !overtaken(operation, segment.candidates, must))) continue;
      const missing = segment.candidates.filter(
        (x) => must(x) && segment.matching.every((w) => w.ackedAt < x.issuedAt),
      );
      const names = missing.map((operation) => `${operation.kind} #${operation.sequence}`).join(", ");
      this.findings.push({
        kind: "not a prefix",
        offset: segment.unit * this.unitBytes + segment.from,
        length: segment.to - segment.from,
        detail: `${names} is missing, though it or something after it is there`,
      });
    }
  }
}
