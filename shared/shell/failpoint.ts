/*
 * Failpoints of a real process: VARVE_TEST_FAILPOINT=name ends it with SIGKILL the first time it comes to that place, name:N the
 * Nth time; name:N:stop pauses it there with SIGSTOP instead. Read once at start; layers pass the function to their engines. Only
 * tests set it.
 */
import type { FailpointName, MoveStep, TakeoverStep, UndeleteStep } from "#shared/ports/failpoint.ts";

export function failpointOf(
  setting: string | undefined,
): (name: FailpointName | TakeoverStep | MoveStep | UndeleteStep) => void {
  if (setting === undefined || setting === "") return () => undefined;
  const [wanted, count, how] = setting.split(":");
  let left = Number(count ?? 1);
  return (name) => {
    if (name !== wanted) return;
    left -= 1;
    if (left === 0) process.kill(process.pid, how === "stop" ? "SIGSTOP" : "SIGKILL");
  };
}
