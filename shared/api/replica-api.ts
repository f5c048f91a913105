/*
 * The part of the HTTP API that changes where replicas are, and compares them, as data. http-api.ts joins it with the rest;
 * services/api/replica-routes.ts answers it, on one machine with an error.
 */
import * as HttpApiEndpoint from "effect/http-api/HttpApiEndpoint";
import * as HttpApiGroup from "effect/http-api/HttpApiGroup";
import * as Schema from "effect/Schema";
import { fillOrigins } from "#shared/domain/replica-report.ts";
import { errors, Size } from "./volume-schema.ts";

const Place = Schema.Struct({ node: Schema.String, pool: Schema.String });

const Comparison = Schema.Struct({
  lsn: Schema.Int,
  sizeBytes: Schema.Int,
  nextOffset: Schema.NullOr(Schema.Int).annotate({
    description: "where the next look begins; null: the end",
  }),
  differing: Schema.Array(
    Schema.Struct({
      offset: Schema.Int,
      sums: Schema.Array(Schema.Struct({ node: Schema.String, sum: Schema.String })),
    }),
  ),
  notCompared: Schema.Int.annotate({
    description: "extents of this look that some replica has in the bucket only",
  }),
});

const fillFrom = Schema.optionalKey(Schema.Literals(fillOrigins)).annotate({
  description: "what alone fills it; without: the bucket, else the other replicas",
});
const AddReplica = Schema.Struct({ node: Schema.optionalKey(Schema.String), fillFrom });
const MoveReplica = Schema.Struct({ from: Schema.String, to: Schema.optionalKey(Schema.String) });
const CompareReplicas = Schema.Struct({
  offset: Schema.optionalKey(Schema.Int),
  rate: Schema.optionalKey(Size).annotate({ description: "bytes a second at most" }),
});

export const replicaBodies = { AddReplica, MoveReplica, CompareReplicas };

export type ApiPlace = typeof Place.Type;
export type ApiComparison = typeof Comparison.Type;

const volume = { name: Schema.String };
const replica = { name: Schema.String, node: Schema.String };
const node = { node: Schema.String };

export const replicas = HttpApiGroup.make("replicas").add(
  HttpApiEndpoint.post("add", "/v1/volumes/:name/replicas", {
    params: volume,
    payload: AddReplica,
    success: Place,
    error: errors,
  }),
  HttpApiEndpoint.delete("remove", "/v1/volumes/:name/replicas/:node", { params: replica, error: errors }),
  HttpApiEndpoint.post("move", "/v1/volumes/:name/move", {
    params: volume,
    payload: MoveReplica,
    success: Place,
    error: errors,
  }),
  HttpApiEndpoint.post("repair", "/v1/volumes/:name/replicas/:node/repair", {
    params: replica,
    query: { fillFrom },
    error: errors,
  }),
  HttpApiEndpoint.post("verify", "/v1/volumes/:name/verify", {
    params: volume,
    payload: CompareReplicas,
    success: Comparison,
    error: errors,
  }),
  HttpApiEndpoint.post("drain", "/v1/nodes/:node/drain", { params: node, error: errors }),
  HttpApiEndpoint.delete("undrain", "/v1/nodes/:node/drain", { params: node, error: errors }),
);
