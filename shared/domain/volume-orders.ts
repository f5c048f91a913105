/*
 * What holds for a volume from now on beside its policy: pool tags for its replicas, copies of its log, snapshot schedules, and the lab
 * file that made it. Stored with the volume in the catalogue; `varve apply` sets them. Rules: docs/specs/apply.md. Pure.
 */
import { machineNameMistake } from "./cluster.ts";
import { VarveError } from "./errors.ts";
import { limits } from "./limits.ts";
import type { VolumeRecord } from "./volume.ts";

/** One snapshot in each slot of `everyMs`, the newest `keep` of them. */
export interface SnapshotSchedule {
  readonly name: string;
  readonly everyMs: number;
  readonly keep: number;
}

export interface VolumeOrders {
  /** Of the file whose apply made the volume; null: made by hand. What is pruned goes by it. */
  readonly lab: string | null;
  /** Replicas are placed in pools that have all of these. */
  readonly tags: readonly string[];
  /** NATS servers that keep its log; null: as many as its gateway is set to. */
  readonly logReplicas: number | null;
  readonly schedules: readonly SnapshotSchedule[];
}

/** What may change later. */
export type OrdersChange = Partial<Omit<VolumeOrders, "lab">>;

export const noOrders: VolumeOrders = { lab: null, tags: [], logReplicas: null, schedules: [] };

const minuteMs = 60_000;

export function hasOrders({ lab, tags, logReplicas, schedules }: VolumeOrders): boolean {
  return lab !== null || tags.length > 0 || logReplicas !== null || schedules.length > 0;
}

/** Every mistake in orders, as sentences with their place; [] where there is none. */
export function ordersMistakes(orders: VolumeOrders): string[] {
  const mistakes: string[] = [];
  const lab = orders.lab === null ? null : machineNameMistake(orders.lab);
  if (lab !== null) mistakes.push(`lab ${JSON.stringify(orders.lab)} ${lab}`);
  mistakes.push(...tagsMistakes(orders.tags, limits.orderTagsMax));
  if (orders.logReplicas !== null && orders.logReplicas !== 1 && orders.logReplicas !== 3) {
    mistakes.push(`${orders.logReplicas} log replicas are neither 1 nor 3`);
  }
  if (orders.schedules.length > limits.schedulesMax) {
    mistakes.push(`${orders.schedules.length} schedules, at most ${limits.schedulesMax}`);
  }
  for (const schedule of orders.schedules) mistakes.push(...scheduleMistakes(schedule));
  const names = orders.schedules.map(({ name }) => name);
  for (const name of twice(names)) mistakes.push(`schedule ${name} is there twice`);
  return mistakes;
}

export function tagsMistakes(tags: readonly string[], most: number): string[] {
  const mistakes = tags.length > most ? [`${tags.length} tags, at most ${most}`] : [];
  for (const tag of tags) {
    const mistake = machineNameMistake(tag);
    if (mistake !== null) mistakes.push(`tag ${JSON.stringify(tag)} ${mistake}`);
  }
  return [...mistakes, ...twice(tags).map((tag) => `tag ${tag} is there twice`)];
}

export function scheduleMistakes({ name, everyMs, keep }: SnapshotSchedule): string[] {
  const mistakes: string[] = [];
  const named =
    name.length > limits.scheduleNameMax
      ? `is longer than ${limits.scheduleNameMax} characters`
      : machineNameMistake(name);
  if (named !== null) mistakes.push(`schedule ${JSON.stringify(name)} ${named}`);
  if (!(everyMs >= minuteMs && everyMs <= limits.scheduleEveryMsMax && everyMs % minuteMs === 0)) {
    mistakes.push(`schedule ${name}: every is not a span of whole minutes from 1m to 366d`);
  }
  if (!(Number.isInteger(keep) && keep >= 1 && keep <= limits.scheduleKeepMax)) {
    mistakes.push(`schedule ${name}: keep is not a number from 1 to ${limits.scheduleKeepMax}`);
  }
  return mistakes;
}

/** The orders with a change. Throws Invalid with every mistake. */
export function orderedFrom(present: VolumeOrders, change: Partial<VolumeOrders>): VolumeOrders {
  const next = { ...present, ...change };
  const mistakes = ordersMistakes(next);
  if (mistakes.length === 0) return next;
  throw new VarveError("VolumeOrdersError", "Invalid", mistakes.join("; "), {
    hint: "What may stand there is in docs/specs/apply.md. Nothing was changed.",
    fields: { mistakes: mistakes.length },
  });
}

/** The record of a volume that is about to be made. Throws Invalid for orders that can't be. */
export function newVolumeRecord(
  wanted: Pick<VolumeRecord, "name" | "sizeBytes" | "durability"> & { orders?: Partial<VolumeOrders> },
  id: string,
  createdAtMs: number,
): VolumeRecord {
  const { name, sizeBytes, durability } = wanted;
  const orders = orderedFrom(noOrders, wanted.orders ?? {});
  const record = { id, name, sizeBytes, durability, createdAtMs, state: "creating" } as const;
  return hasOrders(orders) ? { ...record, orders } : record;
}

function twice(names: readonly string[]): string[] {
  return [...new Set(names.filter((name, index) => names.indexOf(name) !== index))];
}
