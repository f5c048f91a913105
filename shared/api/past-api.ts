/*
 * The part of the HTTP API that is about the past, as data: snapshots, timeline, changed ranges, blocks at a point, clones,
 * rollback, fill, jobs. http-api.ts joins it with the rest; services/api/past-routes.ts answers it.
 */
import * as HttpApiEndpoint from "effect/http-api/HttpApiEndpoint";
import * as HttpApiGroup from "effect/http-api/HttpApiGroup";
import * as HttpApiSchema from "effect/http-api/HttpApiSchema";
import * as Schema from "effect/Schema";
import { Durability, errors, NullableError, Size, Span, Volume } from "./volume-schema.ts";

const Time = Schema.String.annotate({ description: "RFC 3339" });

const Snapshot = Schema.Struct({ name: Schema.String, lsn: Schema.Int, createdAt: Time });

const ResolvedPoint = Schema.Struct({ lsn: Schema.Int, time: Time });

export const Job = Schema.Struct({
  id: Schema.String,
  kind: Schema.String.annotate({
    description: "create from, rollback, fill, tier, rescue, undelete, scrub, collect, check",
  }),
  volume: Schema.String,
  state: Schema.Literals(["running", "done", "failed", "stopped"]),
  startedAt: Time,
  endedAt: Schema.NullOr(Time),
  doneBytes: Schema.Int,
  totalBytes: Schema.Int.annotate({ description: "0 while it is not known" }),
  note: Schema.String,
  failure: NullableError,
});

const Interval = Schema.Struct({
  from: Time,
  to: Time,
  firstLsn: Schema.Int,
  lastLsn: Schema.Int,
  writes: Schema.Int,
  writeBytes: Schema.Int,
  zeroBytes: Schema.Int,
  events: Schema.Array(Schema.String),
});

const History = Schema.Struct({
  volume: Schema.String,
  range: Schema.Struct({ fromLsn: Schema.Int, toLsn: Schema.Int, from: Time, to: Time }).annotate({
    description: "the oldest and the newest point that open now",
  }),
  archivedLsn: Schema.Int,
  heldLsn: Schema.Int,
  since: Time,
  until: Time,
  intervals: Schema.Array(Interval),
  snapshots: Schema.Array(Snapshot),
});

const Changes = Schema.Struct({
  volume: Schema.String,
  from: ResolvedPoint,
  to: ResolvedPoint,
  sizeBytes: Schema.Int,
  changedBytes: Schema.Int,
  ranges: Schema.Array(Schema.Struct({ offset: Schema.Int, length: Schema.Int })),
});

const StartedChange = Schema.Struct({
  volume: Volume,
  point: ResolvedPoint,
  job: Job,
  disconnected: Schema.Int.annotate({ description: "connections that were cut" }),
});

const Policy = {
  history: Schema.optionalKey(Span),
  residency: Schema.optionalKey(Schema.Literals(["full", "tiered"])),
  coldAfter: Schema.optionalKey(Span),
  bucketAway: Schema.optionalKey(Schema.Literals(["stop", "drop history"])),
};

const CreateSnapshot = Schema.Struct({ name: Schema.String });
const CreateClone = Schema.Struct({
  name: Schema.String,
  point: Schema.String,
  size: Schema.optionalKey(Size),
  durability: Schema.optionalKey(Durability),
  replicas: Schema.optionalKey(Schema.Int).annotate({
    description: "in a cluster; without: as many as the parent has",
  }),
  ...Policy,
});
const Tier = Schema.Struct({ coldAfter: Schema.optionalKey(Span) });
const Rollback = Schema.Struct({ point: Schema.String, force: Schema.optionalKey(Schema.Boolean) });

export const policyFields = Policy;
export const pastBodies = { CreateSnapshot, CreateClone, Rollback, Tier };

export type ApiSnapshot = typeof Snapshot.Type;
export type ApiJob = typeof Job.Type;
export type ApiHistory = typeof History.Type;
export type ApiInterval = typeof Interval.Type;
export type ApiChanges = typeof Changes.Type;
export type ApiStartedChange = typeof StartedChange.Type;

const params = { name: Schema.String };
const volume = "/v1/volumes/:name";

export const past = HttpApiGroup.make("past").add(
  HttpApiEndpoint.get("snapshots", `${volume}/snapshots`, {
    params,
    success: Schema.Array(Snapshot),
    error: errors,
  }),
  HttpApiEndpoint.post("createSnapshot", `${volume}/snapshots`, {
    params,
    payload: CreateSnapshot,
    success: Snapshot.pipe(HttpApiSchema.status(201)),
    error: errors,
  }),
  HttpApiEndpoint.delete("deleteSnapshot", `${volume}/snapshots/:snapshot`, {
    params: { name: Schema.String, snapshot: Schema.String },
    error: errors,
  }),
  HttpApiEndpoint.get("history", `${volume}/history`, {
    params,
    query: {
      since: Schema.optionalKey(Schema.String),
      until: Schema.optionalKey(Schema.String),
      intervals: Schema.optionalKey(Schema.String),
    },
    success: History,
    error: errors,
  }),
  HttpApiEndpoint.get("changes", `${volume}/changes`, {
    params,
    query: { from: Schema.String, to: Schema.String },
    success: Changes,
    error: errors,
  }),
  HttpApiEndpoint.get("blocks", `${volume}/points/:point/blocks`, {
    params: { name: Schema.String, point: Schema.String },
    query: { offset: Schema.String, length: Schema.String },
    success: Schema.Uint8Array.pipe(HttpApiSchema.asUint8Array()),
    error: errors,
  }),
);

/** What starts background work, and the work itself. */
export const jobs = HttpApiGroup.make("jobs").add(
  HttpApiEndpoint.post("clone", `${volume}/clones`, {
    params,
    payload: CreateClone,
    success: StartedChange.pipe(HttpApiSchema.status(201)),
    error: errors,
  }),
  HttpApiEndpoint.post("rollback", `${volume}/rollback`, {
    params,
    payload: Rollback,
    success: StartedChange,
    error: errors,
  }),
  HttpApiEndpoint.post("fill", `${volume}/fill`, {
    params,
    success: Job.pipe(HttpApiSchema.status(202)),
    error: errors,
  }),
  HttpApiEndpoint.post("tier", `${volume}/tier`, {
    params,
    payload: Tier,
    success: Job.pipe(HttpApiSchema.status(202)),
    error: errors,
  }),
  HttpApiEndpoint.get("jobs", "/v1/jobs", { success: Schema.Array(Job), error: errors }),
  HttpApiEndpoint.get("job", "/v1/jobs/:id", { params: { id: Schema.String }, success: Job, error: errors }),
);
