// What a user gets who configured the bucket wrong, against a real S3 server and against servers that are none: Invalid, at
// once, with what to do, and without any credential in message, hint, fields or cause.
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { inspect } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SystemClock, SystemRandom } from "#shared/adapters/clock/system.ts";
import { openObjectStore } from "#shared/adapters/object-store/open-object-store.ts";
import { ObjectStoreError } from "#shared/domain/errors.ts";
import type { ObjectStore } from "#shared/ports/object-store.ts";
import { S3Server } from "../tools/s3-servers.ts";

let server: S3Server;
beforeAll(async () => {
  server = await S3Server.start();
});
afterAll(() => server.stop());

const secrets = ["varve-test-key", "varve-test-secret", "another-key-id", "another-secret-key"];

async function failureOf(
  url: string,
  env: Record<string, string>,
  ask: (store: ObjectStore) => Promise<unknown> = (store) => store.probe(),
): Promise<ObjectStoreError> {
  const store = await openObjectStore(url, {
    clock: new SystemClock(),
    random: new SystemRandom(),
    environment: env,
  });
  try {
    const outcome = await ask(store).then(
      (value) => new Error(`it succeeded: ${inspect(value)}`),
      (error: unknown) => error,
    );
    if (!(outcome instanceof ObjectStoreError)) throw outcome;
    const shown = inspect(outcome, { depth: 10, showHidden: true });
    for (const secret of secrets) expect(shown).not.toContain(secret);
    return outcome;
  } finally {
    await store.close();
  }
}

const eachRequest: readonly (readonly [string, (store: ObjectStore) => Promise<unknown>])[] = [
  ["put", (store) => store.put("k", Buffer.from("x"))],
  ["get", (store) => store.get("k")],
  ["get of a range", (store) => store.get("k", { start: 0, length: 5 })],
  ["head", (store) => store.head("k")],
  ["remove", (store) => store.remove("k")],
  ["list", (store) => store.list("k")[Symbol.asyncIterator]().next()],
];

describe("a real server", () => {
  test("a wrong secret and an unknown key are Invalid and name the variables", async () => {
    for (const env of [
      { AWS_ACCESS_KEY_ID: "varve-test-key", AWS_SECRET_ACCESS_KEY: "another-secret-key" },
      { AWS_ACCESS_KEY_ID: "another-key-id", AWS_SECRET_ACCESS_KEY: "varve-test-secret" },
    ]) {
      const error = await failureOf(server.url(), env);
      // The status is 403, but VersityGW says 404 of an unknown key, by a name of its own.
      expect(error).toMatchObject({
        kind: "Invalid",
        message: expect.stringMatching(/SignatureDoesNotMatch|InvalidAccessKeyId|XAdminUserNotFound/),
      });
      expect(error.hint).toContain("AWS_ACCESS_KEY_ID");
    }
  });

  test("a put that says another SHA-256 than its content has is refused: what is signed is what the caller said", async () => {
    const wrong = "0".repeat(64);
    const put = (store: ObjectStore) => store.put("signed", Buffer.from("x"), { sha256: wrong });
    const error = await failureOf(server.url(), server.env, put);
    expect(error).toMatchObject({ kind: "Invalid", message: expect.stringContaining("SHA256") });
    const store = await openObjectStore(server.url(), {
      clock: new SystemClock(),
      random: new SystemRandom(),
      environment: server.env,
    });
    expect(await store.get("signed")).toBeNull();
    await store.close();
  });

  test.each(eachRequest)(
    "a bucket that is not there is Invalid, never an absent object: %s",
    async (_, ask) => {
      const url = server.url().replace("s3://past", "s3://future");
      const error = await failureOf(url, server.env, ask);
      expect(error).toMatchObject({ kind: "Invalid", hint: expect.stringContaining("Make the bucket") });
    },
  );

  test("https:// at a server without TLS is Invalid", async () => {
    const error = await failureOf(server.url().replace("http://", "https://"), server.env);
    expect(error).toMatchObject({ kind: "Invalid", hint: expect.stringContaining("http://") });
  });
});

describe("no S3 server", () => {
  async function served(answer: RequestListener, work: (url: string) => Promise<void>): Promise<void> {
    const other: Server = createServer(answer);
    await new Promise<void>((resolve) => {
      other.listen(0, "127.0.0.1", resolve);
    });
    try {
      await work(`s3://past/x?endpoint=http://127.0.0.1:${(other.address() as AddressInfo).port}`);
    } finally {
      other.closeAllConnections();
      other.close();
    }
  }

  test("a web server that answers everything with a page", async () => {
    const page: RequestListener = (request, response) => {
      request.resume().on("end", () => {
        response.writeHead(200, { "content-type": "text/html" }).end("<html><body>Welcome</body></html>");
      });
    };
    await served(page, async (url) => {
      expect(await failureOf(url, server.env)).toMatchObject({ operation: "probe", kind: "Internal" });
      const listing = await failureOf(url, server.env, (store) =>
        store.list("")[Symbol.asyncIterator]().next(),
      );
      expect(listing.kind).toBe("Invalid");
    });
  });

  test.each([404, 405, 501])("a web server that answers %i", async (status) => {
    const refuse: RequestListener = (request, response) => {
      request.resume().on("end", () => response.writeHead(status).end("<h1>No</h1>"));
    };
    await served(refuse, async (url) => {
      for (const [, ask] of eachRequest) expect((await failureOf(url, server.env, ask)).kind).toBe("Invalid");
    });
  });

  test("answers that pass: 503 twice, a body that breaks off twice, then the object", async () => {
    let requests = 0;
    const content = Buffer.alloc(100_000, 3);
    const flaky: RequestListener = (_, response) => {
      requests += 1;
      if (requests <= 2) {
        response.writeHead(503).end("<Error><Code>SlowDown</Code></Error>");
      } else if (requests <= 4) {
        response.writeHead(200, { "content-length": content.length });
        response.write(content.subarray(0, 60_000), () => response.destroy());
      } else {
        response.writeHead(200, { "content-length": content.length }).end(content);
      }
    };
    await served(flaky, async (url) => {
      const store = await openObjectStore(url, {
        clock: new SystemClock(),
        random: new SystemRandom(),
        environment: server.env,
      });
      expect((await store.get("k"))?.equals(content)).toBe(true);
      expect(store.counters).toMatchObject({ get: 5, retries: 4, getBytes: content.length });
      await store.close();
    });
  });

  test("a store that ignores ranges still gives the range", async () => {
    const content = Buffer.from("0123456789");
    const whole: RequestListener = (_, response) => {
      response.writeHead(200, { "content-length": content.length }).end(content);
    };
    await served(whole, async (url) => {
      const store = await openObjectStore(url, {
        clock: new SystemClock(),
        random: new SystemRandom(),
        environment: server.env,
      });
      expect(String(await store.get("k", { start: 3, length: 4 }))).toBe("3456");
      expect(String(await store.get("k", { start: 8, length: 40 }))).toBe("89");
      expect(String(await store.get("k", { start: 80, length: 4 }))).toBe("");
      await store.close();
    });
  });
});
