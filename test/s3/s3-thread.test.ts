// The S3 thread beside what the store's contract asks: requests in hand when it dies, is closed or a request is aborted, and
// content in shared memory. The server here answers when a test says so.
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { S3Thread } from "#shared/adapters/object-store/s3-thread.ts";
import type { Attempt } from "#shared/adapters/object-store/store-requests.ts";
import { parseBucketUrl, type S3BucketAddress } from "#shared/domain/bucket-url.ts";

const credentials = { accessKeyId: "varve-test-key", secretAccessKey: "varve-test-secret" };
type Answer = (request: IncomingMessage, response: ServerResponse) => void;

async function onThread(
  answer: Answer,
  work: (thread: S3Thread, address: S3BucketAddress) => Promise<void>,
): Promise<void> {
  const server = createServer((request, response) => answer(request, response));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const port = (server.address() as AddressInfo).port;
  const address = parseBucketUrl(`s3://past/x?endpoint=http://127.0.0.1:${port}`) as S3BucketAddress;
  const thread = new S3Thread(address, credentials);
  try {
    await work(thread, address);
  } finally {
    thread.close();
    server.closeAllConnections();
    server.close();
  }
}

function attempt(signal = new AbortController().signal, expected: number[] = []): Attempt {
  return { signal, expect: (bytes) => expected.push(bytes) };
}

const lost = { _tag: "ObjectStoreError", kind: "Retry", operation: "get", key: "k", ambiguous: true };

test("a thread that dies rejects what it had in hand, and the next request starts another", async () => {
  const program = new URL("./dying-program.ts", import.meta.url);
  const address = parseBucketUrl("s3://past/x?endpoint=http://127.0.0.1:9") as S3BucketAddress;
  const thread = new S3Thread(address, credentials, program);
  const both = await Promise.allSettled([
    thread.get("k", undefined, attempt()),
    thread.get("k", undefined, attempt()),
    thread.remove("die", attempt()),
  ]);
  for (const outcome of both.slice(0, 2)) expect(outcome).toMatchObject({ status: "rejected", reason: lost });
  expect(both[2]).toMatchObject({ reason: { operation: "delete", key: "die", ambiguous: true } });
  expect(String((both[2] as PromiseRejectedResult).reason)).not.toContain("varve-test-secret");
  expect(await thread.head("alive", attempt())).toEqual({ key: "alive", bytes: 1, modifiedMs: 2 });
  thread.close();
});

test("an abort rejects at once and ends the request's connection", async () => {
  const came = Promise.withResolvers<IncomingMessage>();
  await onThread(
    (request) => came.resolve(request),
    async (thread) => {
      const stop = new AbortController();
      const asked = thread.get("k", undefined, attempt(stop.signal));
      const closed = once((await came.promise).socket, "close");
      stop.abort();
      await expect(asked).rejects.toMatchObject(lost);
      await closed;
      await expect(thread.get("k", undefined, attempt(stop.signal))).rejects.toMatchObject(lost);
    },
  );
});

test("close rejects requests in hand and later ones, and ends their connections", async () => {
  const came = Promise.withResolvers<IncomingMessage>();
  await onThread(
    (request) => came.resolve(request),
    async (thread) => {
      const asked = thread.get("k", undefined, attempt());
      const closed = once((await came.promise).socket, "close");
      thread.close();
      await expect(asked).rejects.toMatchObject(lost);
      await closed;
      await expect(thread.get("k", undefined, attempt())).rejects.toMatchObject(lost);
    },
  );
});

test("a put from shared memory sends what stands there; after an aborted put the memory serves the retry", async () => {
  const bodies: Buffer[] = [];
  let requests = 0;
  const first = Promise.withResolvers<void>();
  await onThread(
    (request, response) => {
      requests += 1;
      if (requests === 1) {
        first.resolve();
        return;
      }
      const pieces: Buffer[] = [];
      request.on("data", (piece: Buffer) => pieces.push(piece));
      request.on("end", () => {
        bodies.push(Buffer.concat(pieces));
        response.end();
      });
    },
    async (thread) => {
      const memory = new SharedArrayBuffer(8 << 20);
      const content = Buffer.from(memory, 100, 6 << 20).fill(7);
      const stop = new AbortController();
      const aborted = thread.put("k", content, {}, attempt(stop.signal));
      await first.promise;
      stop.abort();
      await expect(aborted).rejects.toMatchObject({ ambiguous: true });
      expect(await thread.put("k", content, {}, attempt())).toBe("stored");
      expect(await thread.put("own", Buffer.from("own bytes"), {}, attempt())).toBe("stored");
      expect(bodies[0]?.equals(Buffer.alloc(6 << 20, 7))).toBe(true);
      expect(String(bodies[1])).toBe("own bytes");
    },
  );
});

test("the announced length comes before the content does", async () => {
  const content = Buffer.alloc(300_000, 5);
  await onThread(
    (_, response) => {
      response.writeHead(200, { "content-length": content.length });
      response.end(content);
    },
    async (thread) => {
      const expected: number[] = [];
      const got = await thread.get("k", undefined, attempt(undefined, expected));
      expect(got?.equals(content)).toBe(true);
      expect(expected).toEqual([content.length]);
    },
  );
});

test("a put that is answered before its content has gone sends no more of it", async () => {
  const memory = new SharedArrayBuffer(4 * 1024 * 1024);
  const seen = Promise.withResolvers<{ bytes: number; changed: number }>();
  const early: Answer = (request, response) => {
    let bytes = 0;
    let changed = 0;
    response.writeHead(412).end();
    request.on("data", (piece: Buffer) => {
      bytes += piece.length;
      if (piece.includes(0xff)) changed += 1;
    });
    request.on("error", () => {}); // it is cut off, that is the point
    const end = (): void => seen.resolve({ bytes, changed });
    request.on("end", end);
    request.socket.on("close", end);
  };
  await onThread(early, async (thread) => {
    expect(await thread.put("k", Buffer.from(memory), { onlyNew: true }, attempt())).toBe("exists");
    new Uint8Array(memory).fill(0xff);
    const { bytes, changed } = await seen.promise;
    expect(changed).toBe(0);
    expect(bytes).toBeLessThan(memory.byteLength);
  });
});
