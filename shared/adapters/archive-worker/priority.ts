/*
 * How much of the processor a thread gets. Called by worker-program.ts on its own thread, at its start. ADR 008 has the measurement.
 */
import { getPriority, setPriority } from "node:os";
import { library } from "#shared/native/library.ts";

/** calm: only what nobody else wants. steady: its share, ten nice levels below the process. */
export type ThreadPriority = "calm" | "steady";

const schedIdle = 5;
const nicerBy = 10;
const nicest = 19;

const setScheduler = library.func("int sched_setscheduler(int pid, int policy, const int32_t *priority)") as (
  pid: number,
  policy: number,
  priority: Int32Array,
) => number;

/** A system that refuses loses a courtesy, not a function. On Linux both are a thread's: 0 is the one that asks. */
export function takePriority(priority: ThreadPriority): void {
  if (priority === "calm" && setScheduler(0, schedIdle, Int32Array.of(0)) === 0) return;
  try {
    setPriority(0, Math.min(nicest, getPriority(0) + nicerBy));
  } catch {
    // As above.
  }
}
