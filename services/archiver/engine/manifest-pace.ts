/*
 * When one volume's uploaded segments go into a manifest: the first at once; while manifests follow each other closely, all of a
 * second together, or 64 MiB of records. A manifest takes three requests, so a busy volume's would cost more than its segments.
 * Owned by log-sealer.ts. Whoever waits for an entry, and every other change of a manifest, does not wait.
 */
import type { Clock, Timer } from "#shared/ports/clock.ts";

export const manifestEveryMs = 1_000;
/** So many do not wait. */
const segmentsMax = 8;

export interface ManifestPaceOptions {
  readonly clock: Clock;
  /** Between two manifests that only add segments. */
  readonly everyMs: number;
  /** The wait is over. */
  readonly onDue: () => void;
}

export class ManifestPace {
  readonly #options: ManifestPaceOptions;
  #publishedAtMs = Number.NEGATIVE_INFINITY;
  #timer: Timer | null = null;

  constructor(options: ManifestPaceOptions) {
    this.#options = options;
  }

  /** A manifest was published. */
  published(): void {
    this.#publishedAtMs = this.#options.clock.monotonicMs();
    this.stop();
  }

  /** Whether so many uploaded segments go now; if not, onDue follows. */
  isDue(segments: number): boolean {
    const { clock, everyMs, onDue } = this.#options;
    const waitMs = this.#publishedAtMs + everyMs - clock.monotonicMs();
    if (waitMs <= 0 || segments >= segmentsMax) return true;
    this.#timer ??= clock.after(waitMs, () => {
      this.#timer = null;
      onDue();
    });
    return false;
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }
}
