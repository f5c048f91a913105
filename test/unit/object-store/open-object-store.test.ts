// From URL and environment to a store: which credentials count, and that no message holds any of them. No server is asked.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { openObjectStore } from "#shared/adapters/object-store/open-object-store.ts";
import { readS3Credentials } from "#shared/adapters/object-store/s3-credentials.ts";
import { ObjectStoreError } from "#shared/domain/errors.ts";

const place = "s3://past at AWS";
let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "varve-open-bucket-"));
});
afterEach(() => rm(directory, { recursive: true }));

const open = (url: string, environment: Record<string, string> = {}, create?: boolean) =>
  openObjectStore(url, {
    clock: new SystemClock(),
    random: new SystemRandom(),
    environment,
    ...(create === undefined ? {} : { create }),
  });

async function refused(promise: Promise<unknown>): Promise<ObjectStoreError> {
  const outcome = await promise.then(
    () => null,
    (error: unknown) => error,
  );
  expect(outcome).toBeInstanceOf(ObjectStoreError);
  return outcome as ObjectStoreError;
}

describe("credentials", () => {
  test("come from AWS_* variables", async () => {
    const both = { AWS_ACCESS_KEY_ID: "id", AWS_SECRET_ACCESS_KEY: " secret\n" };
    expect(await readS3Credentials(both, place)).toEqual({ accessKeyId: "id", secretAccessKey: "secret" });
    expect(await readS3Credentials({ ...both, AWS_SESSION_TOKEN: "t" }, place)).toMatchObject({
      sessionToken: "t",
    });
  });

  test("come from files where one is named, and then nothing comes from AWS_*", async () => {
    const [id, secret] = [join(directory, "id"), join(directory, "secret")];
    await writeFile(id, "file-id\n");
    await writeFile(secret, "file-secret\n");
    const environment = {
      VARVE_S3_ACCESS_KEY_ID_FILE: id,
      VARVE_S3_SECRET_ACCESS_KEY_FILE: secret,
      AWS_ACCESS_KEY_ID: "other",
      AWS_SECRET_ACCESS_KEY: "other",
      AWS_SESSION_TOKEN: "other",
    };
    expect(await readS3Credentials(environment, place)).toEqual({
      accessKeyId: "file-id",
      secretAccessKey: "file-secret",
    });
    const half = { ...environment, VARVE_S3_SECRET_ACCESS_KEY_FILE: "" };
    expect((await refused(readS3Credentials(half, place))).message).toContain("no secret access key");
  });

  test("missing ones are Invalid, with the names of the variables and never a value", async () => {
    const none = await refused(open("s3://past"));
    expect(none).toMatchObject({ kind: "Invalid", operation: "open" });
    expect(none.hint).toContain("AWS_ACCESS_KEY_ID");
    const half = await refused(open("s3://past", { AWS_ACCESS_KEY_ID: "AKIAhidden" }));
    expect(`${half.message} ${half.hint} ${JSON.stringify(half.fields)}`).not.toContain("AKIAhidden");
    const file = await refused(open("s3://past", { VARVE_S3_ACCESS_KEY_ID_FILE: join(directory, "none") }));
    expect(file.message).toContain("VARVE_S3_ACCESS_KEY_ID_FILE");
    expect(file.message).toContain("ENOENT");
    await writeFile(join(directory, "long"), "x".repeat(20_000));
    const long = await refused(open("s3://past", { VARVE_S3_ACCESS_KEY_ID_FILE: join(directory, "long") }));
    expect(long.message).toContain("is no secret");
  });
});

describe("opening", () => {
  test("a directory is made where it is missing, unless the caller only reads", async () => {
    const url = `file://${join(directory, "a", "b")}`;
    expect(await refused(open(url, {}, false))).toMatchObject({
      kind: "Invalid",
      hint: expect.stringContaining("make the directory"),
    });
    const store = await open(url);
    expect(store.place).toBe(url);
    expect(await store.probe()).toEqual({ conditionalPut: true, durablePut: true });
    await store.put("k", Buffer.from("v"));
    expect(String(await (await open(url, {}, false)).get("k"))).toBe("v");
  });

  test("an S3 store says where it is, and asks nobody before it is used", async () => {
    const environment = { AWS_ACCESS_KEY_ID: "id", AWS_SECRET_ACCESS_KEY: "secret" };
    const store = await open("s3://past/home?endpoint=http://127.0.0.1:9", environment);
    expect(store.place).toBe("s3://past/home at 127.0.0.1:9");
    expect(store.counters.put + store.counters.get + store.counters.list).toBe(0);
    await store.close();
  });

  test("a wrong URL is Invalid and is not repeated", async () => {
    const error = await refused(open("s3://me:hunter2@past"));
    expect(error).toMatchObject({ kind: "Invalid" });
    expect(error.message).toBe(
      "open in the bucket: its URL holds credentials, which would show in process lists and logs; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead",
    );
  });
});
