/*
 * The part of the HTTP API that is about the bucket as a whole, as data: check, usage, collection, scrub, deleted volumes. Long
 * work is a job (past-api.ts), its report is asked for when it is done. http-api.ts joins it with the rest;
 * services/api/bucket-routes.ts answers it.
 */
import * as HttpApiEndpoint from "effect/http-api/HttpApiEndpoint";
import * as HttpApiGroup from "effect/http-api/HttpApiGroup";
import * as HttpApiSchema from "effect/http-api/HttpApiSchema";
import * as Schema from "effect/Schema";
import { Job } from "./past-api.ts";
import { errors } from "./volume-schema.ts";

const Finding = Schema.Struct({ key: Schema.String, problem: Schema.String });

const CheckReport = Schema.Struct({
  place: Schema.String,
  volumes: Schema.Int,
  objects: Schema.Int,
  bytes: Schema.Int,
  unnamedObjects: Schema.Int.annotate({ description: "leftovers in their grace time; not errors" }),
  findings: Schema.Array(Finding),
  problems: Schema.Int,
});

const Usage = Schema.Struct({
  place: Schema.String,
  rows: Schema.Array(
    Schema.Struct({
      volume: Schema.String,
      volumeId: Schema.NullOr(Schema.String),
      kind: Schema.String,
      objects: Schema.Int,
      bytes: Schema.Int,
      monthlyCost: Schema.Finite.annotate({ description: "US dollars" }),
    }),
  ),
  objects: Schema.Int,
  bytes: Schema.Int,
  monthlyCost: Schema.Finite,
  prices: Schema.String,
  requests: Schema.Record(Schema.String, Schema.Int),
  requestCost: Schema.Finite,
  limits: Schema.NullOr(
    Schema.Struct({
      bytesMax: Schema.NullOr(Schema.Finite),
      uploadBytesPerSecond: Schema.NullOr(Schema.Finite),
      downloadBytesPerSecond: Schema.NullOr(Schema.Finite),
      fillBytesPerSecond: Schema.NullOr(Schema.Finite),
    }),
  ).annotate({ description: "what bounds it, null: no limit; all null where no server was asked" }),
  volumes: Schema.Array(
    Schema.Struct({
      volume: Schema.String,
      volumeId: Schema.String,
      historyMs: Schema.Finite.annotate({ description: "history window, milliseconds" }),
      archivedLsn: Schema.Int,
      retainedFromLsn: Schema.Int.annotate({
        description: "every moment from this entry on opens, and older snapshots",
      }),
      snapshots: Schema.Int,
    }),
  ),
  notes: Schema.Array(Schema.String),
});

const CollectReport = Schema.Struct({
  dryRun: Schema.Boolean,
  timeMs: Schema.Int.annotate({ description: "retention time, milliseconds since 1970" }),
  behindMs: Schema.Int,
  paused: Schema.NullOr(Schema.String),
  trimmed: Schema.Array(
    Schema.Struct({
      volume: Schema.String,
      retainedFromLsn: Schema.Int,
      segments: Schema.Int,
      bases: Schema.Int,
      exactBases: Schema.Array(Schema.Int),
    }),
  ),
  listed: Schema.Int,
  named: Schema.Int,
  waiting: Schema.Int,
  waitingBytes: Schema.Int,
  deleted: Schema.Int,
  deletedBytes: Schema.Int,
  keys: Schema.Array(Schema.String),
  findings: Schema.Array(Finding),
});

const ScrubReport = Schema.Struct({
  volume: Schema.String,
  lsn: Schema.Int,
  extents: Schema.Int,
  compared: Schema.Int,
  bytes: Schema.Int,
  remote: Schema.Int,
  busy: Schema.Int,
  damaged: Schema.Array(
    Schema.Struct({
      extent: Schema.Int,
      firstOffset: Schema.Int,
      repaired: Schema.Boolean,
      node: Schema.optionalKey(Schema.String.annotate({ description: "in a cluster: whose replica" })),
      why: Schema.optionalKey(
        Schema.String.annotate({ description: "why it was not repaired, where known" }),
      ),
    }),
  ),
  replicas: Schema.optionalKey(
    Schema.Array(
      Schema.Struct({
        node: Schema.String,
        against: Schema.NullOr(Schema.Literals(["bucket", "replicas"])).annotate({
          description: "what it was compared with; null: it was passed over",
        }),
        compared: Schema.Int,
        remote: Schema.Int,
        busy: Schema.Int,
        reason: Schema.String.annotate({
          description: "why it was passed over, or not compared with the bucket",
        }),
      }),
    ).annotate({ description: "in a cluster; the counts are sums over these" }),
  ),
});

const Report = Schema.Union([
  Schema.Struct({ kind: Schema.Literals(["check"]), report: CheckReport }),
  Schema.Struct({ kind: Schema.Literals(["collect"]), report: CollectReport }),
  Schema.Struct({ kind: Schema.Literals(["scrub"]), report: ScrubReport }),
]);

const DeletedVolume = Schema.Struct({
  volumeId: Schema.String,
  name: Schema.String,
  sizeBytes: Schema.Int,
  deletedAtMs: Schema.Int,
  archivedLsn: Schema.Int,
  goesInMs: Schema.NullOr(Schema.Int),
});

const RescuedVolume = Schema.Struct({
  name: Schema.String,
  volumeId: Schema.String,
  sizeBytes: Schema.Int,
  lsn: Schema.Int,
  reachedMs: Schema.NullOr(Schema.Int),
  line: Schema.String,
  lineNumber: Schema.Int,
});

const Check = Schema.Struct({ quick: Schema.optionalKey(Schema.Boolean) });
const Collect = Schema.Struct({
  dryRun: Schema.optionalKey(Schema.Boolean),
  acceptClock: Schema.optionalKey(Schema.Boolean),
});
const Scrub = Schema.Struct({
  repair: Schema.optionalKey(Schema.Boolean),
  bytesPerSecond: Schema.optionalKey(Schema.Int),
  node: Schema.optionalKey(
    Schema.String.annotate({ description: "in a cluster: the replica on this node only" }),
  ),
});

export const bucketBodies = { Check, Collect, Scrub };

export type ApiBucketReport = typeof Report.Type;
export type ApiUsage = typeof Usage.Type;
export type ApiDeletedVolume = typeof DeletedVolume.Type;
export type ApiRescuedVolume = typeof RescuedVolume.Type;

const started = Job.pipe(HttpApiSchema.status(202));

export const bucket = HttpApiGroup.make("bucket").add(
  HttpApiEndpoint.get("usage", "/v1/bucket/usage", { success: Usage, error: errors }),
  HttpApiEndpoint.post("check", "/v1/bucket/check", { payload: Check, success: started, error: errors }),
  HttpApiEndpoint.post("collect", "/v1/bucket/collect", {
    payload: Collect,
    success: started,
    error: errors,
  }),
  HttpApiEndpoint.post("scrub", "/v1/volumes/:name/scrub", {
    params: { name: Schema.String },
    payload: Scrub,
    success: started,
    error: errors,
  }),
  HttpApiEndpoint.get("report", "/v1/bucket/reports/:id", {
    params: { id: Schema.String },
    success: Report,
    error: errors,
  }),
  HttpApiEndpoint.get("deleted", "/v1/bucket/deleted", {
    success: Schema.Array(DeletedVolume),
    error: errors,
  }),
  HttpApiEndpoint.post("undelete", "/v1/bucket/deleted/:name/undelete", {
    params: { name: Schema.String },
    query: { as: Schema.optionalKey(Schema.String) },
    success: RescuedVolume,
    error: errors,
  }),
);
