/*
 * The system's clock for leases: CLOCK_BOOTTIME, which goes on while the machine is suspended. With CLOCK_MONOTONIC a gateway on a
 * laptop that slept would believe in a lease that others have taken long ago (docs/specs/cluster.md#reads-and-the-lease).
 * Given to leases and to strict reads by the cluster gateway's layer.
 */
import { invariant } from "#shared/domain/invariant.ts";
import { library } from "#shared/native/library.ts";
import { SystemClock } from "./system.ts";

const bootTime = 7; // CLOCK_BOOTTIME of <linux/time.h>
const clockGettime = library.func("int clock_gettime(int clock, void *now)") as (
  clock: number,
  now: Buffer,
) => number;

export class BootClock extends SystemClock {
  /** struct timespec: seconds, nanoseconds. */
  readonly #now = Buffer.alloc(16);

  override monotonicMs(): number {
    invariant(clockGettime(bootTime, this.#now) === 0, "the kernel has CLOCK_BOOTTIME");
    return Number(this.#now.readBigInt64LE(0)) * 1000 + Number(this.#now.readBigInt64LE(8)) / 1e6;
  }
}
