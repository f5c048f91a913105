/*
 * What the past administration says in the JSON form of the HTTP API (past-api.ts), and policies from that form. The server
 * answers with it (services/api/past-routes.ts).
 */
import type { SnapshotRecord } from "#shared/domain/archive.ts";
import { VarveError } from "#shared/domain/errors.ts";
import { type HistoryPolicy, spanMsMax } from "#shared/domain/history-record.ts";
import { parsePoint } from "#shared/domain/point.ts";
import { timeSpanFrom } from "#shared/domain/time-span.ts";
import { timeText } from "#shared/domain/wall-time.ts";
import type { ResolvedPoint } from "#shared/ports/history.ts";
import type { ChangesView, HistoryView, JobView, StartedChange } from "#shared/ports/past-administration.ts";
import { errorBody } from "./error-body.ts";
import type { ApiPolicy } from "./http-api.ts";
import type { ApiChanges, ApiHistory, ApiJob, ApiSnapshot, ApiStartedChange } from "./past-api.ts";
import { volumeBody } from "./volume-body.ts";

export function snapshotBody({ name, lsn, wallTimeMs }: SnapshotRecord): ApiSnapshot {
  return { name, lsn, createdAt: timeText(wallTimeMs) };
}

const pointBody = ({ lsn, wallTimeMs }: ResolvedPoint) => ({ lsn, time: timeText(wallTimeMs) });

export function jobBody(job: JobView): ApiJob {
  const { id, kind, volume, state, doneBytes, totalBytes, note } = job;
  return {
    id,
    kind,
    volume,
    state,
    startedAt: timeText(job.startedAtMs),
    endedAt: job.endedAtMs === null ? null : timeText(job.endedAtMs),
    doneBytes,
    totalBytes,
    note,
    failure: job.failure === null ? null : errorBody(job.failure),
  };
}

export function historyBody(view: HistoryView): ApiHistory {
  const { fromLsn, toLsn, fromMs, toMs } = view.range;
  return {
    volume: view.volume,
    range: { fromLsn, toLsn, from: timeText(fromMs), to: timeText(toMs) },
    archivedLsn: view.archivedLsn,
    heldLsn: view.heldLsn,
    since: timeText(view.sinceMs),
    until: timeText(view.untilMs),
    intervals: view.intervals.map(({ fromMs, toMs, ...figures }) => ({
      from: timeText(fromMs),
      to: timeText(toMs),
      ...figures,
    })),
    snapshots: view.snapshots.map(snapshotBody),
  };
}

export function changesBody(view: ChangesView): ApiChanges {
  return { ...view, from: pointBody(view.from), to: pointBody(view.to) };
}

export function startedBody(started: StartedChange, uris: readonly string[]): ApiStartedChange {
  return {
    volume: volumeBody(started.volume, uris),
    point: pointBody(started.point),
    job: jobBody(started.job),
    disconnected: started.disconnected,
  };
}

/** A policy from a request's body; what was not said is not in it. Throws Invalid. */
export function policyFrom(body: ApiPolicy): Partial<HistoryPolicy> {
  return {
    ...(body.history === undefined ? {} : { historyMs: spanOf(body.history, "history", 0) }),
    ...(body.residency === undefined ? {} : { residency: body.residency }),
    ...(body.coldAfter === undefined ? {} : { coldAfterMs: spanOf(body.coldAfter, "coldAfter", 1) }),
    ...(body.bucketAway === undefined ? {} : { bucketAway: body.bucketAway }),
  };
}

/** A time of a query, milliseconds since 1970. Throws Invalid. */
export function timeFrom(text: string, what: string): number {
  const point = parsePointOf(text);
  if (point !== null) return point;
  throw new VarveError(
    "TimeSyntaxError",
    "Invalid",
    `${what}: ${JSON.stringify(text)} is not a time with its zone`,
    {
      hint: "Write it like 2026-11-20T10:15:00Z or 2026-11-20T10:15:00+01:00.",
      fields: { text },
    },
  );
}

function parsePointOf(text: string): number | null {
  try {
    const point = parsePoint(text);
    return point.kind === "time" ? point.wallTimeMs : null;
  } catch {
    return null;
  }
}

/** A span of a request's body. Throws Invalid. */
export function spanOf(value: string | number, what: string, least: number): number {
  const span = typeof value === "number" ? value : timeSpanFrom(value, what);
  if (Number.isSafeInteger(span) && span >= least && span <= spanMsMax) return span;
  throw new VarveError(
    "TimeSpanError",
    "Invalid",
    `${what}: ${value} is not a span of time up to 100 years`,
    {
      hint: "Write a number with s, m, h, d or w: 90s, 12h, 7d, 2w.",
    },
  );
}
