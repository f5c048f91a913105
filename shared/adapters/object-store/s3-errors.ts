/*
 * What a failure of the S3 client means: wrong credentials and buckets are Invalid with what to do, everything that may pass is
 * Retry. Names and statuses decide, never a message's text. Nothing of the client's error object is passed on: it holds the
 * request with its signature. Called by s3-requests.ts.
 */
import { type ErrorKind, ObjectStoreError } from "#shared/domain/errors.ts";

interface Meaning {
  readonly kind: ErrorKind;
  readonly hint: string;
}

const credentials: Meaning = {
  kind: "Invalid",
  hint: "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the VARVE_S3_..._FILE files).",
};
const full: Meaning = {
  kind: "Full",
  hint: "Make room in the store, raise its quota, or shorten the history window.",
};
const certificate: Meaning = {
  kind: "Invalid",
  hint: "The store's certificate is not trusted: name its CA in NODE_EXTRA_CA_CERTS.",
};
const tryAgain: Meaning = { kind: "Retry", hint: "Is the store up and reachable? Varve tries again." };

/** By the store's error code, or the name of the client's own or the system's error. */
const byName: Readonly<Record<string, Meaning>> = {
  InvalidAccessKeyId: credentials,
  // VersityGW, with status 404.
  XAdminUserNotFound: credentials,
  SignatureDoesNotMatch: credentials,
  InvalidSecurity: credentials,
  InvalidToken: credentials,
  ExpiredToken: credentials,
  AuthorizationHeaderMalformed: { kind: "Invalid", hint: "Check the region in the bucket's URL." },
  AccessDenied: {
    kind: "Invalid",
    hint: "The credentials need s3:GetObject, PutObject, DeleteObject and ListBucket on this bucket and prefix.",
  },
  RequestTimeTooSkewed: { kind: "Invalid", hint: "Set this machine's clock: the store refuses its time." },
  NoSuchBucket: { kind: "Invalid", hint: "Make the bucket, or correct the bucket's URL." },
  InvalidBucketName: { kind: "Invalid", hint: "Correct the bucket's name in the URL." },
  PermanentRedirect: {
    kind: "Invalid",
    hint: "The bucket is in another region: name it in the URL, ?region=...",
  },
  QuotaExceeded: full,
  XMinioStorageFull: full,
  XMinioAdminBucketQuotaExceeded: full,
  InsufficientStorage: full,
  EntityTooLarge: { kind: "Invalid", hint: "The store must take objects of 32 MiB." },
  RequestTimeout: tryAgain,
  SlowDown: tryAgain,
  ConditionalRequestConflict: tryAgain,
  OperationAborted: tryAgain,
  CERT_HAS_EXPIRED: certificate,
  DEPTH_ZERO_SELF_SIGNED_CERT: certificate,
  SELF_SIGNED_CERT_IN_CHAIN: certificate,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: certificate,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: certificate,
  ERR_TLS_CERT_ALTNAME_INVALID: certificate,
  EPROTO: { kind: "Invalid", hint: "The endpoint does not speak TLS: write http:// in the bucket's URL." },
  ERR_INVALID_URL: { kind: "Invalid", hint: "Correct the endpoint in the bucket's URL." },
};

/** The name that says most: a system error's code, or the error's name. */
export function s3ErrorName(error: unknown): string {
  const { code, name, cause } = (error ?? {}) as { code?: unknown; name?: unknown; cause?: unknown };
  if (typeof code === "string" && code !== "") return code;
  const inner = (cause ?? {}) as { code?: unknown };
  if (typeof inner.code === "string") return inner.code;
  return typeof name === "string" && /^[A-Za-z0-9_.]{1,64}$/.test(name) ? name : "Error";
}

export function s3Status(error: unknown): number | undefined {
  const metadata = (error as { $metadata?: { httpStatusCode?: unknown } } | null)?.$metadata;
  return typeof metadata?.httpStatusCode === "number" ? metadata.httpStatusCode : undefined;
}

export function s3Error(operation: string, place: string, key: string, error: unknown): ObjectStoreError {
  if (error instanceof ObjectStoreError) return error;
  const name = s3ErrorName(error);
  const status = s3Status(error);
  const { kind, hint } = byName[name] ?? byStatus(status);
  const what = status === undefined ? name : `${name} (HTTP ${status})`;
  return new ObjectStoreError(
    { kind, operation, place, key, ...(status === undefined ? {} : { status }) },
    what,
    { hint, ambiguous: kind === "Retry" },
  );
}

/** Without a status nothing was answered: the network. */
function byStatus(status: number | undefined): Meaning {
  if (status === undefined || status === 408 || status === 409 || status === 429) return tryAgain;
  if (status === 401 || status === 403) return credentials;
  if (status === 507) return full;
  if (status >= 500 && status !== 501) return tryAgain;
  if (status === 501)
    return { kind: "Invalid", hint: "The store can't do what Varve needs: see docs/specs/object-store.md." };
  if (status < 400)
    return { kind: "Invalid", hint: "The endpoint answers, but not as S3: correct it in the bucket's URL." };
  return { kind: "Invalid", hint: "Check bucket, endpoint and region in the bucket's URL." };
}
