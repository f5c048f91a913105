/*
 * Failpoints of a real process: VARVE_TEST_FAILPOINT=name ends it with SIGKILL the first time it comes to that place, name:N the
 * Nth time. Read once at start; layers pass the function to their engines. Only crash tests set it.
 */
import type { Failpoint } from "#shared/ports/failpoint.ts";

export function failpointOf(setting: string | undefined): Failpoint {
  if (setting === undefined || setting === "") return () => undefined;
  const [wanted, count] = setting.split(":");
  let left = Number(count ?? 1);
  return (name) => {
    if (name !== wanted) return;
    left -= 1;
    if (left === 0) process.kill(process.pid, "SIGKILL");
  };
}
