/*
 * Decides whether a write may block the event loop: only where recent writes of comparable size were fast, measured and not
 * assumed. The group writer asks before each write and tells each duration, of writes on the loop and on threads alike.
 * Invariant L12 in docs/specs/embedded-log.md.
 */

/** Writes above this size go to a thread and are not measured. */
export const inlineBytesMax = 256 * 1024;
const slowMs = 1;
const stallMs = 20;
const samplesKept = 256;
const samplesNeeded = 32;
const samplesAfterStall = 64;

export class InlineGate {
  /** Ring of "this one was slow". */
  readonly #slow = new Uint8Array(samplesKept);
  #count = 0;
  #next = 0;
  #slowCount = 0;
  #stalledFor = 0;

  /** True while the measured p99 is below 1 ms. */
  get open(): boolean {
    return (
      this.#stalledFor === 0 &&
      this.#count >= samplesNeeded &&
      this.#slowCount * 100 < Math.max(this.#count, 101)
    );
  }

  sample(durationMs: number): void {
    const slow = durationMs >= slowMs ? 1 : 0;
    if (this.#count === samplesKept) this.#slowCount -= this.#slow[this.#next] ?? 0;
    else this.#count += 1;
    this.#slow[this.#next] = slow;
    this.#slowCount += slow;
    this.#next = (this.#next + 1) % samplesKept;
    if (durationMs >= stallMs) this.#stalledFor = samplesAfterStall;
    else if (this.#stalledFor > 0) this.#stalledFor -= 1;
  }
}
