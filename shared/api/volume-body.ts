/*
 * A volume in the JSON form of the HTTP API (shared/api/http-api.ts). The server answers with it (services/api/routes.ts);
 * the CLI makes the same of a volume that it opened itself, so that --json is the same with --api and with --data.
 */
import { timeSpanFrom, timeSpanText } from "#shared/domain/time-span.ts";
import type { OrdersChange, VolumeOrders } from "#shared/domain/volume-orders.ts";
import type { VolumePastView, VolumeView } from "#shared/ports/volume-administration.ts";
import { errorBody } from "./error-body.ts";
import type { ApiOrders, ApiVolume } from "./http-api.ts";

export function volumeBody(view: VolumeView, uris: readonly string[]): ApiVolume {
  const { heldInMs = null } = view;
  return {
    id: view.id,
    name: view.name,
    sizeBytes: view.sizeBytes,
    durability: view.durability,
    reads: view.reads,
    orders: ordersBody(view.orders),
    createdAt: new Date(view.createdAtMs).toISOString(),
    condition: view.condition,
    heldInMs: heldInMs === null ? null : Math.ceil(heldInMs),
    failure: view.failure === null ? null : errorBody(view.failure),
    attachedClients: view.attachedClients,
    uris,
    imagePath: view.imagePath,
    logPath: view.logPath,
    figures: view.figures,
    ...(view.arrivesFrom === undefined ? {} : { arrivesFrom: view.arrivesFrom }),
    past: view.past === null ? null : pastBody(view.past),
  };
}

function ordersBody({ lab, tags, logReplicas, schedules }: VolumeOrders): ApiVolume["orders"] {
  return {
    lab,
    tags,
    logReplicas,
    schedules: schedules.map(({ name, everyMs, keep }) => ({ name, every: timeSpanText(everyMs), keep })),
  };
}

/** Orders from a request's body; what was not said is not in it. Throws Invalid. */
export function ordersFrom({ tags, logReplicas, schedules }: ApiOrders): OrdersChange {
  return {
    ...(tags === undefined ? {} : { tags }),
    ...(logReplicas === undefined ? {} : { logReplicas }),
    ...(schedules === undefined
      ? {}
      : {
          schedules: schedules.map(({ name, every, keep }) => ({
            name,
            everyMs: typeof every === "number" ? every : timeSpanFrom(every, `schedules.${name}.every`),
            keep,
          })),
        }),
  };
}

function pastBody(past: VolumePastView): NonNullable<ApiVolume["past"]> {
  const { historyMs, residency, coldAfterMs, bucketAway } = past.policy;
  return {
    history: timeSpanText(historyMs),
    residency,
    coldAfter: timeSpanText(coldAfterMs),
    bucketAway,
    origin: past.origin,
    snapshots: past.snapshots,
    pins: past.pins,
    archive: past.archive,
    archivedLsn: past.archivedLsn,
    heldLsn: past.heldLsn,
    retainedFromLsn: past.retainedFromLsn,
    fillBytesPerSecond: past.fillBytesPerSecond,
    archiveError: past.archiveError === null ? null : errorBody(past.archiveError),
    extents: past.extents,
    job: past.job,
  };
}
