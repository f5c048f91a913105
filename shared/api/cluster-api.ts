/*
 * The part of the HTTP API that is about several machines, as data: nodes, replicas, which gateway serves what, and taking a volume
 * away from it. http-api.ts joins it with the rest; services/api/cluster-routes.ts answers it, on one machine with an error.
 */
import * as HttpApiEndpoint from "effect/http-api/HttpApiEndpoint";
import * as HttpApiGroup from "effect/http-api/HttpApiGroup";
import * as Schema from "effect/Schema";
import { errors, Reads, Size } from "./volume-schema.ts";

const Node = Schema.Struct({
  name: Schema.String,
  host: Schema.String,
  version: Schema.String,
  alive: Schema.Boolean,
  drained: Schema.Boolean,
  ageMs: Schema.Int.annotate({ description: "since its last sign of life" }),
  pools: Schema.Array(
    Schema.Struct({
      name: Schema.String,
      capacityBytes: Schema.Int,
      freeBytes: Schema.Int,
      quotaBytes: Schema.NullOr(Schema.Int),
      tags: Schema.Array(Schema.String),
    }),
  ),
  volumes: Schema.Array(Schema.String),
});

const Replica = Schema.Struct({
  volume: Schema.String,
  node: Schema.String,
  pool: Schema.String,
  leaving: Schema.Boolean.annotate({ description: "it goes when the others follow" }),
  condition: Schema.Literals(["filling", "following", "lagging", "halted", "silent"]),
  reason: Schema.String,
  appliedLsn: Schema.Int,
  checkpointLsn: Schema.Int,
  epoch: Schema.Int,
  allocatedBytes: Schema.Int,
});

const Attachment = Schema.Struct({
  volume: Schema.String,
  gateway: Schema.String,
  address: Schema.String,
  epoch: Schema.Int,
});

const SetPools = Schema.Struct({
  pools: Schema.Array(
    Schema.Struct({
      name: Schema.String,
      quota: Schema.optionalKey(Schema.NullOr(Size)).annotate({ description: "null: no limit" }),
      tags: Schema.optionalKey(Schema.Array(Schema.String)),
    }),
  ),
});

const Arrive = Schema.Struct({
  from: Schema.String.annotate({ description: "id of the volume in its data directory" }),
  place: Schema.String.annotate({ description: "where that is, for people" }),
  size: Size,
  reads: Schema.optionalKey(Reads),
  replicas: Schema.optionalKey(Schema.Int),
});

const Arrived = Schema.Struct({ volumeId: Schema.String });

const Arrival = Schema.Struct({
  volumeId: Schema.String,
  fresh: Schema.Boolean.annotate({ description: "nothing was ever written to it" }),
});

export const clusterBodies = { SetPools, Arrive, Arrived };

export type ApiNode = typeof Node.Type;
export type ApiReplica = typeof Replica.Type;
export type ApiAttachment = typeof Attachment.Type;
export type ApiArrival = typeof Arrival.Type;

export const cluster = HttpApiGroup.make("cluster").add(
  HttpApiEndpoint.get("nodes", "/v1/nodes", { success: Schema.Array(Node), error: errors }),
  HttpApiEndpoint.patch("setPools", "/v1/nodes/:node", {
    params: { node: Schema.String },
    payload: SetPools,
    success: Node,
    error: errors,
  }),
  HttpApiEndpoint.get("replicas", "/v1/replicas", { success: Schema.Array(Replica), error: errors }),
  HttpApiEndpoint.get("attachments", "/v1/attachments", {
    success: Schema.Array(Attachment),
    error: errors,
  }),
  HttpApiEndpoint.post("takeover", "/v1/volumes/:name/takeover", {
    params: { name: Schema.String },
    success: Attachment,
    error: errors,
  }),
  HttpApiEndpoint.post("arrive", "/v1/volumes/:name/arrive", {
    params: { name: Schema.String },
    payload: Arrive,
    success: Arrival,
    error: errors,
  }),
  HttpApiEndpoint.post("arrived", "/v1/volumes/:name/arrived", {
    params: { name: Schema.String },
    payload: Arrived,
    success: Arrival,
    error: errors,
  }),
);
