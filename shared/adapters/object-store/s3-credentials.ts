/*
 * Credentials for S3: from AWS_* variables, or from files that VARVE_S3_*_FILE name (secrets of a container). Never from URLs, and
 * never in a message: what is wrong is told by the name of the variable. Called by open-object-store.ts.
 */
import { readFile } from "node:fs/promises";
import { ObjectStoreError } from "#shared/domain/errors.ts";

export interface S3Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

export type Environment = Readonly<Record<string, string | undefined>>;

const howTo =
  "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name files with them in VARVE_S3_ACCESS_KEY_ID_FILE and VARVE_S3_SECRET_ACCESS_KEY_FILE.";
const secretBytesMax = 16 * 1024;

/** The files win where one is named: then all comes from files, so that parts of two identities never mix. */
export async function readS3Credentials(environment: Environment, place: string): Promise<S3Credentials> {
  const named = (variable: string): boolean => (environment[variable] ?? "") !== "";
  const fromFiles = named("VARVE_S3_ACCESS_KEY_ID_FILE") || named("VARVE_S3_SECRET_ACCESS_KEY_FILE");
  const value = async (variable: string, fileVariable: string): Promise<string> =>
    fromFiles ? await secretFrom(environment, fileVariable, place) : (environment[variable] ?? "").trim();
  const accessKeyId = await value("AWS_ACCESS_KEY_ID", "VARVE_S3_ACCESS_KEY_ID_FILE");
  const secretAccessKey = await value("AWS_SECRET_ACCESS_KEY", "VARVE_S3_SECRET_ACCESS_KEY_FILE");
  const sessionToken = await value("AWS_SESSION_TOKEN", "VARVE_S3_SESSION_TOKEN_FILE");
  if (accessKeyId === "") throw missing(place, "no access key id");
  if (secretAccessKey === "") throw missing(place, "no secret access key");
  return { accessKeyId, secretAccessKey, ...(sessionToken === "" ? {} : { sessionToken }) };
}

async function secretFrom(environment: Environment, variable: string, place: string): Promise<string> {
  const path = environment[variable] ?? "";
  if (path === "") return "";
  const content = await readFile(path, "utf8").catch((error: unknown) => {
    const code = (error as { code?: unknown }).code;
    throw missing(place, `the file that ${variable} names can't be read (${String(code)})`);
  });
  if (content.length > secretBytesMax) throw missing(place, `the file that ${variable} names is no secret`);
  return content.trim();
}

function missing(place: string, what: string): ObjectStoreError {
  return new ObjectStoreError({ kind: "Invalid", operation: "open", place, key: "" }, what, { hint: howTo });
}
