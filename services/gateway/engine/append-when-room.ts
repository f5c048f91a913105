/*
 * A mark waits for room in the log as writes do, however busy the writers are: a snapshot is never refused for want of it. (Memory it has
 * of its own, see volume-writer.ts.) Called by volume-session.ts.
 */
import { toVarveError } from "#shared/domain/errors.ts";

/**
 * `append` gives null where there is no room now. It is asked again from inside the call that says that there is room: later it would be
 * somebody else's turn, and the one who gave room thinks it used (the simulator's seed 28 waited for ever).
 */
export function appendWhenRoom(
  append: () => Promise<number> | null,
  onRoom: (callback: () => void) => void,
): Promise<number> {
  return new Promise((resolve, reject) => {
    const attempt = (): void => {
      try {
        const appended = append();
        if (appended === null) onRoom(attempt);
        else appended.then(resolve, reject);
      } catch (cause) {
        reject(toVarveError(cause, "append"));
      }
    };
    attempt();
  });
}
