// Which Host and Origin headers the HTTP API takes: a web page that rebinds its own name to loopback must not reach it, a
// person with curl must, by any name of this machine where the server listens beyond loopback.
// On the wire: test/e2e/bad-input.test.ts.
import { describe, expect, test } from "vitest";
import { errorBody, errorFromBody, httpStatusOf, isErrorBody } from "#shared/api/error-body.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { ListenAddress } from "#shared/shell/listen-address.ts";
import { hostMistake, originMistake } from "../../../services/api/guard.ts";

const loopback: ListenAddress = { kind: "tcp", host: "127.0.0.1", port: 8080 };
const named: ListenAddress = { kind: "tcp", host: "localhost", port: 8080 };
const open: ListenAddress = { kind: "tcp", host: "0.0.0.0", port: 8080 };

describe("the Host header", () => {
  test.each(["127.0.0.1:8080", "localhost", "localhost:9", "[::1]:8080", "192.168.1.5"])(
    "%s is taken",
    (host) => {
      for (const address of [loopback, named, open]) expect(hostMistake(host, address)).toBeNull();
    },
  );

  test.each([
    "evil.example",
    "evil.example:8080",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "",
    undefined,
  ])("%s is refused on loopback, and taken where the server is open to the network", (host) => {
    expect(hostMistake(host, loopback)?._tag).toBe("ForeignHostError");
    expect(hostMistake(host, open)).toBeNull();
  });
});

test("a page of another origin is refused, one of our own is not", () => {
  expect(originMistake(undefined, "127.0.0.1:8080")).toBeNull();
  expect(originMistake("http://127.0.0.1:8080", "127.0.0.1:8080")).toBeNull();
  for (const origin of ["http://evil.example", "null", "https://127.0.0.1:8080", "http://127.0.0.1:81"]) {
    expect(originMistake(origin, "127.0.0.1:8080")?._tag, origin).toBe("ForeignHostError");
  }
});

test("an error crosses HTTP with everything but its cause", () => {
  const error = new VarveError("VolumeAttachedError", "Invalid", "attached", {
    hint: "wait",
    fields: { name: "a", count: 2, inode: 7n, missing: undefined },
    cause: new Error("inner"),
  });
  const body: unknown = JSON.parse(JSON.stringify(errorBody(error)));
  expect(body).toEqual({
    tag: "VolumeAttachedError",
    kind: "Invalid",
    message: "attached",
    hint: "wait",
    fields: { name: "a", count: 2, inode: "7" },
  });
  if (!isErrorBody(body)) throw new Error("not an error body");
  expect(errorFromBody(body)).toMatchObject({ _tag: "VolumeAttachedError", kind: "Invalid", hint: "wait" });
  expect(httpStatusOf(body)).toBe(409);
  expect(httpStatusOf({ tag: "SomeError", kind: "Full" })).toBe(507);
  for (const other of [null, 1, {}, { ...body, kind: "Odd" }, { ...body, fields: undefined }]) {
    expect(isErrorBody(other)).toBe(false);
  }
});
