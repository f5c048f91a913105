/*
 * A volume and an error as the HTTP API speaks of them, as schemas. http-api.ts and past-api.ts build their answers of them;
 * volume-body.ts makes the values.
 */
import * as HttpApiSchema from "effect/http-api/HttpApiSchema";
import * as Schema from "effect/Schema";

export const Fields = Schema.Record(
  Schema.String,
  Schema.Union([Schema.String, Schema.Finite, Schema.Boolean]),
);

export const ApiError = Schema.Struct({
  tag: Schema.String.annotate({ description: "which error, e.g. VolumeExistsError; stable" }),
  kind: Schema.Literals(["Retry", "Fenced", "Invalid", "Corrupt", "Full", "Internal"]).annotate({
    description: "what the caller must do",
  }),
  message: Schema.String,
  hint: Schema.String,
  fields: Fields,
});

/** The same body under each status that an error can have; docs/errors.md says which is when. */
export const errors = [400, 404, 409, 413, 415, 421, 500, 503, 507].map((status) =>
  ApiError.pipe(HttpApiSchema.status(status)),
);

export const NullableError = Schema.NullOr(ApiError);

export const Durability = Schema.Literals(["write", "flush"]).annotate({
  description: "write: a reply means durable. flush: FLUSH and FUA mean durable.",
});

export const Reads = Schema.Literals(["available", "strict"]).annotate({
  description:
    "what a gateway that can't prove that it still serves the volume answers: its last state, or nothing",
});

export const Size = Schema.Union([Schema.String, Schema.Int]).annotate({
  description: 'bytes as a number, or binary units as a text: "10G" is 10 GiB',
});

const Figures = Schema.Struct({
  line: Schema.String,
  epoch: Schema.Int,
  oldestLsn: Schema.Int,
  lastLsn: Schema.Int,
  durableLsn: Schema.Int,
  appliedLsn: Schema.Int,
  checkpointLsn: Schema.Int,
  imageAllocatedBytes: Schema.Int,
  logDiskBytes: Schema.Int,
  logBytesMax: Schema.Int.annotate({ description: "a log that takes so much refuses writes" }),
  overlayRanges: Schema.Int,
  counters: Schema.Record(Schema.String, Schema.Finite),
});

export const Span = Schema.Union([Schema.String, Schema.Int]).annotate({
  description: 'a span of time: "7d", "12h", "90s", or milliseconds as a number',
});

const Orders = Schema.Struct({
  lab: Schema.NullOr(Schema.String).annotate({ description: "lab file whose apply made the volume" }),
  tags: Schema.Array(Schema.String).annotate({ description: "of the pools that its replicas are placed in" }),
  logReplicas: Schema.NullOr(Schema.Int).annotate({ description: "NATS servers that keep its log" }),
  schedules: Schema.Array(
    Schema.Struct({ name: Schema.String, every: Schema.String, keep: Schema.Int }),
  ).annotate({ description: "snapshots that are taken by themselves" }),
});

/** Of a body that creates or changes a volume. */
export const orderFields = {
  tags: Schema.optionalKey(Schema.Array(Schema.String)),
  logReplicas: Schema.optionalKey(Schema.NullOr(Schema.Int)),
  schedules: Schema.optionalKey(
    Schema.Array(Schema.Struct({ name: Schema.String, every: Span, keep: Schema.Int })),
  ),
};

const Past = Schema.Struct({
  history: Schema.String.annotate({ description: "how far back every moment opens: 7d" }),
  residency: Schema.Literals(["full", "tiered"]),
  coldAfter: Schema.String,
  bucketAway: Schema.Literals(["stop", "drop history"]),
  origin: Schema.NullOr(
    Schema.Struct({ volumeId: Schema.String, name: Schema.String, lsn: Schema.Int }),
  ).annotate({ description: "the point that a clone or restore began as" }),
  snapshots: Schema.Int,
  pins: Schema.Int,
  archive: Schema.Literals(["running", "waiting for the bucket", "stopped", "away", "off", "closed"]),
  archivedLsn: Schema.Int,
  heldLsn: Schema.Int,
  retainedFromLsn: Schema.NullOr(Schema.Int).annotate({
    description: "every moment from this entry on opens, and older snapshots; null: not known here",
  }),
  fillBytesPerSecond: Schema.NullOr(Schema.Finite).annotate({
    description: "limit of background fills; null: none",
  }),
  archiveError: NullableError,
  extents: Schema.NullOr(
    Schema.Struct({ total: Schema.Int, local: Schema.Int, remote: Schema.Int, partial: Schema.Int }),
  ),
  job: Schema.NullOr(Schema.String),
});

export const Volume = Schema.Struct({
  id: Schema.String,
  name: Schema.String,
  sizeBytes: Schema.Int,
  durability: Durability,
  reads: Reads,
  orders: Orders,
  createdAt: Schema.String.annotate({ description: "RFC 3339" }),
  condition: Schema.Literals(["serving", "halted", "failed", "busy", "closed", "deleting"]),
  heldInMs: Schema.NullOr(Schema.Int).annotate({
    description: "of a volume that is deleting: until the bucket holds it and its files go; null: not known",
  }),
  failure: NullableError,
  attachedClients: Schema.Int,
  uris: Schema.Array(Schema.String).annotate({ description: "NBD URIs, one per listening address" }),
  imagePath: Schema.String,
  logPath: Schema.String,
  figures: Schema.NullOr(Figures),
  arrivesFrom: Schema.optionalKey(Schema.String).annotate({
    description: "while it is moved into a cluster: its id in the data directory that it comes from",
  }),
  past: Schema.NullOr(Past),
});
