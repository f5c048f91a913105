/*
 * The HTTP API as data: paths, bodies, answers, errors. One definition for the server (services/api/routes.ts), for
 * /openapi.json and for the dashboard to come. Needs effect/Schema, so the CLI imports only types from here
 * (services/cli/api-client.ts): loading it takes 0.2 s.
 */
import * as HttpApi from "effect/http-api/HttpApi";
import * as HttpApiEndpoint from "effect/http-api/HttpApiEndpoint";
import * as HttpApiGroup from "effect/http-api/HttpApiGroup";
import * as HttpApiSchema from "effect/http-api/HttpApiSchema";
import * as OpenApi from "effect/http-api/OpenApi";
import * as Schema from "effect/Schema";
import { bucket, bucketBodies } from "./bucket-api.ts";
import { cluster, clusterBodies } from "./cluster-api.ts";
import { jobs, past, pastBodies, policyFields } from "./past-api.ts";
import { replicaBodies, replicas } from "./replica-api.ts";
import { Durability, errors, Fields, orderFields, Reads, Size, Volume } from "./volume-schema.ts";

const Connection = Schema.Struct({
  volume: Schema.NullOr(Schema.String).annotate({ description: "null while the client negotiates" }),
  peer: Schema.String,
  requestsInFlight: Schema.Int,
  unsentBytes: Schema.Int,
  counters: Schema.Record(Schema.String, Schema.Finite),
});

const Status = Schema.Struct({
  version: Schema.String,
  pid: Schema.Int,
  startedAt: Schema.String,
  dataDirectory: Schema.String,
  nbd: Schema.Array(Schema.String),
  volumes: Schema.Int,
  volumesFailed: Schema.Array(Schema.String),
  connections: Schema.Int,
  residentBytes: Schema.Int,
  freeBytes: Schema.Int,
});

const ImageReport = Schema.Struct({
  name: Schema.String,
  clean: Schema.Boolean,
  findings: Schema.Array(Schema.String),
  fields: Fields,
});

const CreateVolume = Schema.Struct({
  name: Schema.String,
  size: Size,
  durability: Schema.optionalKey(Durability),
  reads: Schema.optionalKey(Reads),
  replicas: Schema.optionalKey(Schema.Int).annotate({
    description: "storage nodes with an image; in a cluster",
  }),
  lab: Schema.optionalKey(Schema.String).annotate({ description: "lab file that this creation comes from" }),
  ...orderFields,
  ...policyFields,
});
const ResizeVolume = Schema.Struct({ size: Size, shrink: Schema.optionalKey(Schema.Boolean) });
const SetVolume = Schema.Struct({
  durability: Schema.optionalKey(Durability),
  reads: Schema.optionalKey(Reads),
  ...orderFields,
  ...policyFields,
});

/** Bodies that the server checks by itself (services/api/request-body.ts), so that every mistake is named at once. */
export const bodies = {
  CreateVolume,
  ResizeVolume,
  SetVolume,
  ...pastBodies,
  ...bucketBodies,
  ...replicaBodies,
  ...clusterBodies,
};

export type ApiVolume = typeof Volume.Type;
export type ApiConnection = typeof Connection.Type;
export type ApiStatus = typeof Status.Type;
export type ApiOrders = Pick<typeof SetVolume.Type, keyof typeof orderFields>;
export type ApiPolicy = Pick<typeof SetVolume.Type, keyof typeof policyFields>;
export type ApiImageReport = typeof ImageReport.Type;

const params = { name: Schema.String };
const text = Schema.String.pipe(HttpApiSchema.asText());

const volumes = HttpApiGroup.make("volumes").add(
  HttpApiEndpoint.get("list", "/v1/volumes", { success: Schema.Array(Volume), error: errors }),
  HttpApiEndpoint.post("create", "/v1/volumes", {
    payload: CreateVolume,
    success: Volume.pipe(HttpApiSchema.status(201)),
    error: errors,
  }),
  HttpApiEndpoint.get("show", "/v1/volumes/:name", { params, success: Volume, error: errors }),
  HttpApiEndpoint.patch("set", "/v1/volumes/:name", {
    params,
    payload: SetVolume,
    success: Volume,
    error: errors,
  }),
  HttpApiEndpoint.delete("delete", "/v1/volumes/:name", { params, error: errors }),
  HttpApiEndpoint.post("resize", "/v1/volumes/:name/resize", {
    params,
    payload: ResizeVolume,
    success: Volume,
    error: errors,
  }),
  HttpApiEndpoint.post("image", "/v1/volumes/:name/image/:operation", {
    params: { name: Schema.String, operation: Schema.Literals(["check", "adopt", "discard"]) },
    success: ImageReport,
    error: errors,
  }),
);

const server = HttpApiGroup.make("server").add(
  HttpApiEndpoint.get("connections", "/v1/connections", { success: Schema.Array(Connection), error: errors }),
  HttpApiEndpoint.get("status", "/v1/status", { success: Status, error: errors }),
  HttpApiEndpoint.get("healthz", "/healthz", { success: text }),
  HttpApiEndpoint.get("readyz", "/readyz", { success: text }),
  HttpApiEndpoint.get("metrics", "/metrics", { success: text }),
);

export const varveApi = HttpApi.make("varve")
  .add(volumes)
  .add(past)
  .add(jobs)
  .add(bucket)
  .add(cluster)
  .add(replicas)
  .add(server)
  .annotateMerge(
    OpenApi.annotations({
      title: "Varve",
      version: "1",
      description:
        "Volumes of a Varve server. Sizes are binary. Errors carry tag, kind, message, hint and fields.",
    }),
  );
