/*
 * The errors of Varve: few kinds, each says what the caller must do. One table maps a kind to NBD errno, HTTP status and
 * exit code (below), so that nothing ever matches on a message's text. Used by every layer.
 */

/**
 * Retry: the same call may succeed later. Fenced: somebody newer writes; stop. Invalid: the caller's input is wrong.
 * Corrupt: stored data is not what was written; nothing was changed. Full: no room; nothing was changed.
 * Internal: a broken promise of our own or of the system below.
 */
export type ErrorKind = "Retry" | "Fenced" | "Invalid" | "Corrupt" | "Full" | "Internal";

export interface ErrorFields {
  readonly [name: string]: string | number | boolean | bigint | undefined;
}

/** Base of all errors that cross a port. `message` says what is wrong and where; `hint` what to do. */
export class VarveError extends Error {
  readonly _tag: string;
  readonly kind: ErrorKind;
  readonly hint: string;
  readonly fields: ErrorFields;

  constructor(
    tag: string,
    kind: ErrorKind,
    message: string,
    options: { readonly hint?: string; readonly fields?: ErrorFields; readonly cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = tag;
    this._tag = tag;
    this.kind = kind;
    this.hint = options.hint ?? "";
    this.fields = options.fields ?? {};
  }
}

/** A system call on a file failed. `code` is the errno name (ENOSPC, EIO, EAGAIN, ENOENT …). */
export class FileStoreError extends VarveError {
  readonly code: string;
  readonly path: string;
  readonly operation: string;

  constructor(
    operation: string,
    path: string,
    code: string,
    options: { hint?: string; cause?: unknown } = {},
  ) {
    super("FileStoreError", kindOfErrno(code), `${operation} ${path}: ${code}`, {
      hint: hintOfErrno(operation, path, code),
      ...options,
      fields: { operation, path, code },
    });
    this.code = code;
    this.path = path;
    this.operation = operation;
  }
}

/** Where the errno says what is to be done, whatever was attempted. */
const hintsOfErrno: Readonly<Record<string, string>> = {
  EFBIG:
    "Its file system holds no file of that size. Take a smaller volume, or a file system for larger files, as XFS.",
  EIO: "The disk may be failing: the kernel's log (dmesg) says more.",
  EMFILE:
    "This process has too many files open: raise its limit (ulimit -n; LimitNOFILE= of a systemd unit).",
  EROFS: "Its file system is read-only. The kernel makes it so after an error of the disk: dmesg says more.",
};

function hintOfErrno(operation: string, path: string, code: string): string {
  if (operation === "replace" && code === "ENOENT")
    return "Its directory is gone: was it moved or deleted under a running server? Put it back, then start the server again.";
  if (code === "ENOSPC")
    return `The file system of ${path} is full: make room on it (df shows how much is left), then try again.`;
  if (code === "EDQUOT")
    return `The quota of this user on the file system of ${path} is used up: raise it or make room, then try again.`;
  return hintsOfErrno[code] ?? "";
}

function kindOfErrno(code: string): ErrorKind {
  if (code === "ENOSPC" || code === "EDQUOT" || code === "EFBIG") return "Full";
  if (code === "EAGAIN" || code === "EBUSY") return "Retry";
  if (code === "ENOENT" || code === "EACCES" || code === "EEXIST" || code === "ENOTDIR") return "Invalid";
  return "Internal";
}

/** Where in the bucket something failed: which store, which object, what was asked, and the store's HTTP status if it gave one. */
export interface ObjectStoreFailure {
  readonly kind: ErrorKind;
  /** put, get, head, list, delete, probe, open. */
  readonly operation: string;
  /** ObjectStore.place: no secrets. */
  readonly place: string;
  readonly key: string;
  readonly status?: number;
}

/**
 * A request to the bucket failed. Retry: it is away, slow or overloaded, and the retries inside were not enough. Invalid:
 * wrong credentials, bucket or URL. Full: no room or a quota. Corrupt: an object that can't be one of ours. `ambiguous`:
 * no answer came, so the request may have been carried out.
 */
export class ObjectStoreError extends VarveError {
  readonly operation: string;
  readonly place: string;
  readonly key: string;
  readonly status: number | undefined;
  readonly ambiguous: boolean;
  /** The message without operation, key and place. */
  readonly what: string;

  constructor(
    failure: ObjectStoreFailure,
    what: string,
    options: { hint?: string; cause?: unknown; ambiguous?: boolean } = {},
  ) {
    const { kind, operation, place, key, status } = failure;
    const object = key === "" ? "" : ` ${key}`;
    super("ObjectStoreError", kind, `${operation}${object} in ${place}: ${what}`, {
      ...options,
      fields: { operation, place, key, ...(status === undefined ? {} : { status }) },
    });
    this.operation = operation;
    this.place = place;
    this.key = key;
    this.status = status;
    this.ambiguous = options.ambiguous ?? false;
    this.what = what;
  }
}

/** What an error kind means at each edge. NBD errno values are those of the NBD protocol. */
export const errorTable: Readonly<
  Record<ErrorKind, { readonly nbdErrno: number; readonly httpStatus: number; readonly exitCode: number }>
> = {
  Retry: { nbdErrno: 5, httpStatus: 503, exitCode: 75 },
  Fenced: { nbdErrno: 5, httpStatus: 409, exitCode: 76 },
  Invalid: { nbdErrno: 22, httpStatus: 400, exitCode: 2 },
  Corrupt: { nbdErrno: 5, httpStatus: 500, exitCode: 65 },
  Full: { nbdErrno: 28, httpStatus: 507, exitCode: 73 },
  Internal: { nbdErrno: 5, httpStatus: 500, exitCode: 70 },
};

export function isVarveError(value: unknown): value is VarveError {
  return value instanceof VarveError;
}

/** Wraps whatever was thrown, so that every error that crosses a port has a kind. */
export function toVarveError(value: unknown, what: string): VarveError {
  if (value instanceof VarveError) return value;
  const message = value instanceof Error ? value.message : String(value);
  return new VarveError("InternalError", "Internal", `${what}: ${message}`, { cause: value });
}
