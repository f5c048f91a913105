/*
 * A bucket as users write it: `file:///DIR`, or `s3://BUCKET/PREFIX?endpoint=http://HOST:PORT&region=REGION&path-style=true`.
 * Read by `--bucket` and by open-object-store.ts. Credentials are refused here, and no message repeats any part of the URL
 * that could hold one. Pure.
 */
import { limits } from "./limits.ts";

export interface DirectoryBucketAddress {
  readonly kind: "directory";
  /** Absolute. */
  readonly path: string;
}

export interface S3BucketAddress {
  readonly kind: "s3";
  readonly bucket: string;
  /** "" or ends with "/". */
  readonly prefix: string;
  /** null: AWS itself. */
  readonly endpoint: string | null;
  readonly region: string | null;
  /** The bucket's name stands in the path, not in the host name. Default with an endpoint, as home servers want it. */
  readonly pathStyle: boolean;
}

export type BucketAddress = DirectoryBucketAddress | S3BucketAddress;

const parameterNames = ["endpoint", "region", "path-style"] as const;
type ParameterName = (typeof parameterNames)[number];

const noCredentials =
  "holds credentials, which would show in process lists and logs; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead";

/** The address, or the rest of a sentence that says what is wrong with the URL. */
export function parseBucketUrl(text: string): BucketAddress | string {
  if (text.startsWith("file:")) return parseDirectory(text);
  if (text.startsWith("s3:")) return parseS3(text);
  return text.startsWith("/")
    ? "is a path; write file:// in front of it"
    : "is neither file:///DIR nor s3://BUCKET/PREFIX?endpoint=...";
}

/** For people: without region and the like. */
export function bucketPlace(address: BucketAddress): string {
  if (address.kind === "directory") return `file://${address.path}`;
  const { bucket, prefix, endpoint } = address;
  const name = prefix === "" ? bucket : `${bucket}/${prefix.slice(0, -1)}`;
  return `s3://${name} at ${endpoint === null ? "AWS" : new URL(endpoint).host}`;
}

function parseDirectory(text: string): DirectoryBucketAddress | string {
  const match = /^file:\/\/(?:localhost)?(\/[^?#]*)$/.exec(text);
  if (match === null) return "has no absolute directory; write file:///DIR";
  const path = decoded(match[1] ?? "");
  if (path === null || path.includes("\0")) return "has a directory with a wrong % escape";
  if (path.split("/").some((part) => part === "." || part === ".."))
    return 'has "." or ".." in its directory';
  const trimmed = path.replace(/\/+$/, "");
  return trimmed === ""
    ? "names the root directory; take one of its own"
    : { kind: "directory", path: trimmed };
}

function parseS3(text: string): S3BucketAddress | string {
  const match = /^s3:\/\/([^/?#]*)(\/[^?#]*)?(?:\?([^#]*))?$/.exec(text);
  if (match === null) return "is not of the form s3://BUCKET/PREFIX?endpoint=...";
  const [, bucket = "", path = "", query = ""] = match;
  if (bucket.includes("@") || bucket.includes(":")) return noCredentials;
  if (!/^[a-zA-Z0-9][a-zA-Z0-9._-]{1,61}[a-zA-Z0-9]$/.test(bucket)) {
    return "has a bucket name that no store takes (3 to 63 letters, digits, dots and hyphens)";
  }
  const prefix = path.replace(/^\/+|\/+$/g, "");
  if (!isPrefix(prefix))
    return "has a prefix with other characters than letters, digits, . _ - and / between names";
  const parameters = parseParameters(query);
  if (typeof parameters === "string") return parameters;
  const endpoint = parseEndpoint(parameters.get("endpoint"));
  if (typeof endpoint === "string") return endpoint;
  const region = parameters.get("region") ?? null;
  if (region !== null && !/^[a-zA-Z0-9-]{1,64}$/.test(region)) return "has a region that is no name";
  const style = parameters.get("path-style") ?? String(endpoint.origin !== null);
  if (style !== "true" && style !== "false") return "has a path-style that is neither true nor false";
  return {
    kind: "s3",
    bucket,
    prefix: prefix === "" ? "" : `${prefix}/`,
    endpoint: endpoint.origin,
    region,
    pathStyle: style === "true",
  };
}

function isPrefix(prefix: string): boolean {
  if (prefix === "") return true;
  if (prefix.length > limits.bucketPrefixLengthMax || !/^[a-zA-Z0-9._/-]+$/.test(prefix)) return false;
  return prefix.split("/").every((part) => part !== "" && part !== "." && part !== "..");
}

function parseParameters(query: string): ReadonlyMap<ParameterName, string> | string {
  const found = new Map<ParameterName, string>();
  for (const part of query.split("&").filter((each) => each !== "")) {
    const equals = part.indexOf("=");
    const name = equals < 0 ? part : part.slice(0, equals);
    if (/key|secret|token|pass|cred|sign|auth|user/i.test(name)) return noCredentials;
    const known = parameterNames.find((each) => each === name);
    if (known === undefined) return `has an unknown parameter; known are ${parameterNames.join(", ")}`;
    if (found.has(known)) return `names ${known} twice`;
    const value = decoded(equals < 0 ? "" : part.slice(equals + 1));
    if (value === null || value === "") return `has no value for ${known}`;
    found.set(known, value);
  }
  return found;
}

/** The endpoint as scheme, host and port, null for none; or what is wrong with it. */
function parseEndpoint(text: string | undefined): { readonly origin: string | null } | string {
  if (text === undefined) return { origin: null };
  if (!/^https?:\/\//i.test(text)) return "has an endpoint without http:// or https://";
  if (text.includes("@")) return noCredentials;
  if (!URL.canParse(text)) return "has an endpoint that is no URL";
  const url = new URL(text);
  if (url.pathname !== "/" || url.search !== "" || url.hash !== "") {
    return "has an endpoint with more than host and port";
  }
  return { origin: url.origin };
}

function decoded(text: string): string | null {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}
