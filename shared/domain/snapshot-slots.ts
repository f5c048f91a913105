/*
 * When scheduled snapshots are taken, what they are called and which of them go (docs/specs/apply.md#snapshot-schedules). A slot's name is
 * the same for everybody who looks, so that nothing is taken twice. Pure; services/api/engine/snapshot-scheduler.ts looks.
 */
import type { SnapshotRecord } from "./archive.ts";
import type { SnapshotSchedule } from "./volume-orders.ts";
import { timeText } from "./wall-time.ts";

const slotPattern = /^\d{8}-\d{6}$/;

/** Of the slot that `wallTimeMs` lies in: `daily.20261128-000000`. */
export function slotName({ name, everyMs }: SnapshotSchedule, wallTimeMs: number): string {
  const begin = timeText(Math.floor(wallTimeMs / everyMs) * everyMs);
  const [day, time] = begin.slice(0, 19).split("T");
  return `${name}.${(day ?? "").replaceAll("-", "")}-${(time ?? "").replaceAll(":", "")}`;
}

/** The snapshot that the present slot lacks; null: it has one. */
export function dueSnapshot(
  schedule: SnapshotSchedule,
  snapshots: readonly SnapshotRecord[],
  wallTimeMs: number,
): string | null {
  const name = slotName(schedule, wallTimeMs);
  return snapshots.some((snapshot) => snapshot.name === name) ? null : name;
}

/** Names of the schedule's own snapshots beyond the newest `keep`, oldest first. Newest is the greatest LSN: clocks may go back. */
export function surplusSnapshots(
  { name, keep }: SnapshotSchedule,
  snapshots: readonly SnapshotRecord[],
): readonly string[] {
  const own = snapshots
    .filter((one) => one.name.startsWith(`${name}.`) && slotPattern.test(one.name.slice(name.length + 1)))
    .sort((a, b) => a.lsn - b.lsn || (a.name < b.name ? -1 : 1));
  return own.slice(0, Math.max(0, own.length - keep)).map((one) => one.name);
}
