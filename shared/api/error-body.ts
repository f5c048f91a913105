/*
 * An error as it crosses HTTP, and as --json prints it: {tag, kind, message, hint, fields}. The server makes it from a
 * VarveError (services/api), the CLI makes a VarveError of it again (services/cli/api-client.ts), so that a command ends
 * with the same words and exit code whether it worked by HTTP or on the files. docs/errors.md lists the tags.
 */
import { type ErrorKind, errorTable, VarveError } from "#shared/domain/errors.ts";

export interface ErrorBody {
  readonly tag: string;
  readonly kind: ErrorKind;
  readonly message: string;
  readonly hint: string;
  readonly fields: Readonly<Record<string, string | number | boolean>>;
}

/** Where HTTP has a better word than the kind's own status. */
const statusByTag: Readonly<Record<string, number>> = {
  UnknownVolumeError: 404,
  UnknownSnapshotError: 404,
  UnknownJobError: 404,
  PointNotThere: 404,
  UnknownRouteError: 404,
  MethodNotAllowedError: 405,
  VolumeExistsError: 409,
  SnapshotExistsError: 409,
  VolumeAttachedError: 409,
  VolumeNeededError: 409,
  VolumeDirectoryTakenError: 409,
  BodyTooLargeError: 413,
  ContentTypeError: 415,
  ForeignHostError: 421,
};

export function httpStatusOf(error: { readonly tag: string; readonly kind: ErrorKind }): number {
  return statusByTag[error.tag] ?? errorTable[error.kind].httpStatus;
}

export function errorBody(error: VarveError): ErrorBody {
  const fields: Record<string, string | number | boolean> = {};
  for (const [name, value] of Object.entries(error.fields)) {
    if (value === undefined) continue;
    fields[name] = typeof value === "bigint" ? value.toString() : value;
  }
  return { tag: error._tag, kind: error.kind, message: error.message, hint: error.hint, fields };
}

export function isErrorBody(value: unknown): value is ErrorBody {
  if (typeof value !== "object" || value === null) return false;
  const body = value as Record<string, unknown>;
  return (
    typeof body["tag"] === "string" &&
    typeof body["message"] === "string" &&
    typeof body["hint"] === "string" &&
    typeof body["fields"] === "object" &&
    typeof body["kind"] === "string" &&
    Object.hasOwn(errorTable, body["kind"])
  );
}

export function errorFromBody(body: ErrorBody): VarveError {
  return new VarveError(body.tag, body.kind, body.message, { hint: body.hint, fields: body.fields });
}
