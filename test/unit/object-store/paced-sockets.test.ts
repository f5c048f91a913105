// Bodies in pieces: the bytes and their order are those of the write, others get their turn between two pieces, and a connection that is
// closed, or fails, reads no further. Both agents make such connections.
import { once } from "node:events";
import { createServer, request } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { createServer as createPlainServer } from "node:net";
import { Duplex } from "node:stream";
import { buffer } from "node:stream/consumers";
import { expect, test } from "vitest";
import {
  bodyPieceBytes,
  PacedHttpAgent,
  PacedHttpsAgent,
  paced,
} from "#shared/adapters/object-store/paced-sockets.ts";

const bytesOf = (length: number, seed = 0): Buffer => {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += 1) bytes[at] = (at * 7 + (at >> 9) + seed) % 251;
  return bytes;
};

/** A connection that notes what was handed down, as it was at that moment. */
class Line extends Duplex {
  readonly took: Buffer[] = [];
  readonly #each: (piece: number) => Error | null;

  constructor(each: (piece: number) => Error | null = () => null) {
    super({ decodeStrings: false });
    this.#each = each;
  }

  override _read(): void {}

  override _write(
    chunk: Buffer | string,
    encoding: BufferEncoding,
    done: (error?: Error | null) => void,
  ): void {
    this.took.push(typeof chunk === "string" ? Buffer.from(chunk, encoding) : Buffer.from(chunk));
    done(this.#each(this.took.length));
  }

  get lengths(): number[] {
    return this.took.map((piece) => piece.length);
  }
}

const written = (line: Duplex, bytes: Buffer): Promise<Error | null> =>
  new Promise((resolve) => {
    line.write(bytes, (error) => resolve(error ?? null));
  });

test("a long write goes down in pieces, a short one as it is", async () => {
  for (const length of [
    0,
    1,
    bodyPieceBytes,
    bodyPieceBytes + 1,
    3 * bodyPieceBytes,
    3 * bodyPieceBytes + 17,
  ]) {
    const line = paced(new Line());
    expect(await written(line, bytesOf(length))).toBe(null);
    expect(Buffer.concat(line.took).equals(bytesOf(length))).toBe(true);
    expect(line.took.length).toBe(Math.max(1, Math.ceil(length / bodyPieceBytes)));
    expect(Math.max(...line.lengths)).toBeLessThanOrEqual(bodyPieceBytes);
  }
});

test("others have their turn between two pieces", async () => {
  const order: string[] = [];
  const line = (name: string): Line => paced(new Line(() => (order.push(name), null)));
  const startedAtMs = performance.now();
  await Promise.all(["a", "b"].map((name) => written(line(name), bytesOf(4 * bodyPieceBytes))));
  expect(order.join("")).toMatch(/^(ab|ba){4}$/);
  expect(performance.now() - startedAtMs).toBeGreaterThan(2.9); // three pauses of a millisecond
});

test("the head goes before the body", async () => {
  const line = paced(new Line());
  line.cork();
  line.write("PUT / HTTP/1.1\r\n\r\n", "latin1");
  const body = written(line, bytesOf(2 * bodyPieceBytes));
  line.uncork();
  expect(await body).toBe(null);
  expect(line.took[0]?.toString()).toBe("PUT / HTTP/1.1\r\n\r\n");
  expect(line.lengths.slice(1)).toEqual([bodyPieceBytes, bodyPieceBytes]);
});

test("many short ones that come together go down together, as they did", async () => {
  class Gathering extends Line {
    gathered = 0;
    override _writev(chunks: readonly { chunk: unknown }[], done: (error?: Error | null) => void): void {
      this.gathered += chunks.length;
      done();
    }
  }
  const line = paced(new Gathering());
  line.cork();
  const all = Array.from({ length: 5000 }, () => written(line, bytesOf(10)));
  line.uncork();
  await Promise.all(all);
  expect(line.gathered).toBe(5000);
  expect(line.took.length).toBe(0);
});

test("what a closed connection had not taken is not read any more", async () => {
  const bytes = bytesOf(4 * bodyPieceBytes);
  const line: Line = paced(
    new Line((piece) => {
      if (piece === 2) line.destroy();
      return null;
    }),
  );
  line.on("error", () => {});
  const reads: number[] = [];
  const subarray = bytes.subarray.bind(bytes);
  bytes.subarray = (from?: number, to?: number) => {
    reads.push(from ?? 0);
    return subarray(from, to);
  };
  expect(await written(line, bytes)).toBeInstanceOf(Error);
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(reads).toEqual([0, bodyPieceBytes]);
  expect(line.took.length).toBe(2);
});

test("a piece that fails ends the write", async () => {
  const line = paced(new Line((piece) => (piece === 2 ? new Error("reset") : null)));
  line.on("error", () => {});
  expect(await written(line, bytesOf(4 * bodyPieceBytes))).toMatchObject({ message: "reset" });
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(line.took.length).toBe(2);
});

test("a body by the agent arrives as it was, on a connection that is used again", async () => {
  const server = createServer((incoming, response) => {
    void buffer(incoming).then((body) => response.end(body));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const agent = new PacedHttpAgent({ keepAlive: true, maxSockets: 1 });
  const sockets = new Set<Socket>();
  for (const length of [0, 100, bodyPieceBytes * 5 + 3]) {
    const sent = request({ host: "127.0.0.1", port, method: "PUT", agent });
    sent.on("socket", (socket) => sockets.add(socket));
    sent.end(bytesOf(length));
    const [answer] = await once(sent, "response");
    expect((await buffer(answer)).equals(bytesOf(length))).toBe(true);
  }
  expect(sockets.size).toBe(1);
  agent.destroy();
  server.close();
});

test("both agents make such connections", async () => {
  const server = createPlainServer((socket) => socket.on("error", () => {}).resume());
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  for (const agent of [new PacedHttpAgent(), new PacedHttpsAgent()]) {
    const socket = agent.createConnection({ host: "127.0.0.1", port }) as Duplex;
    socket.on("error", () => {}); // there is no TLS behind that port
    expect(Object.hasOwn(socket, "_write") && Object.hasOwn(socket, "_writev")).toBe(true);
    socket.destroy();
  }
  server.close();
});
