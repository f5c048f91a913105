/*
 * Reads the JSON body of a request and checks it against its schema: bounded size, no unknown fields, every mistake in one
 * answer. routes.ts calls it for POST and PATCH. Not left to the schema layer's own reading, whose answers would not be
 * in the shape of all other errors.
 */
import * as ByteSize from "effect/ByteSize";
import * as Effect from "effect/Effect";
import { MaxBodySize } from "effect/http/HttpIncomingMessage";
import type { HttpServerRequest } from "effect/http/HttpServerRequest";
import * as Schema from "effect/Schema";
import * as SchemaIssue from "effect/SchemaIssue";
import { VarveError } from "#shared/domain/errors.ts";

/** The largest body is a name, a size and a word. */
const bodyBytesMax = 16 * 1024;

const mistakesOf = SchemaIssue.makeFormatterStandardSchemaV1({
  leafHook: (issue) => {
    if (issue._tag === "MissingKey") return "is missing";
    if (issue._tag === "UnexpectedKey") return "is not known";
    return SchemaIssue.defaultLeafHook(issue);
  },
});

export const readBody = Effect.fnUntraced(function* <S extends Schema.ConstraintDecoder<unknown>>(
  request: HttpServerRequest,
  schema: S,
) {
  const type = (request.headers["content-type"] ?? "").split(";", 1)[0]?.trim().toLowerCase();
  if (type !== "application/json") {
    return yield* Effect.fail(
      new VarveError(
        "ContentTypeError",
        "Invalid",
        `content type ${JSON.stringify(type)} is not application/json`,
        {
          hint: "Send the body as JSON with the header content-type: application/json.",
        },
      ),
    );
  }
  if (Number(request.headers["content-length"] ?? 0) > bodyBytesMax) return yield* Effect.fail(tooLarge());
  const text = yield* request.text.pipe(
    Effect.provideService(MaxBodySize, ByteSize.fromInputUnsafe(bodyBytesMax)),
    Effect.mapError(tooLarge),
  );
  const value = yield* Effect.try({ try: () => JSON.parse(text) as unknown, catch: notJson });
  return yield* Schema.decodeUnknownEffect(schema, { errors: "all", onExcessProperty: "error" })(value).pipe(
    Effect.mapError((error) => wrongBody(error.issue)),
  );
});

function wrongBody(issue: SchemaIssue.Issue): VarveError {
  const lines = mistakesOf(issue).issues.map(({ path, message }) => {
    const place = (path ?? []).map(String).join(".");
    return place === "" ? message : `${place}: ${message}`;
  });
  return new VarveError("RequestBodyError", "Invalid", `the request body is wrong: ${lines.join("; ")}`, {
    hint: "The shape of every body is in /openapi.json. Nothing was changed.",
    fields: { mistakes: lines.length },
  });
}

function tooLarge(): VarveError {
  return new VarveError("BodyTooLargeError", "Invalid", `the request body is above ${bodyBytesMax} bytes`, {
    hint: "No request of this API needs that much. Nothing was changed.",
    fields: { bodyBytesMax },
  });
}

function notJson(cause: unknown): VarveError {
  return new VarveError("RequestBodyError", "Invalid", "the request body is not JSON", {
    hint: 'For example: {"name": "disk0", "size": "10G"}. Nothing was changed.',
    cause,
  });
}
