/*
 * Connections to an S3 server that take long bodies piece by piece, with a pause between two pieces: 8 MiB at once keep this thread in
 * the kernel for milliseconds and a server on the same machine busy for as long, and disks wait behind both (ADR 008). Used by
 * s3-program.ts as the AWS client's agents.
 */
import { type AgentOptions, type ClientRequestArgs, Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent, type RequestOptions } from "node:https";
import type { Duplex } from "node:stream";

/** A server hashes this in a quarter of a millisecond. With the pause below it makes 50 to 60 MB/s for each body under way. */
export const bodyPieceBytes = 64 * 1024;
/** The shortest that a timer can be. */
const pauseMs = 1;

type Done = (error?: Error | null) => void;
interface Waiting {
  readonly chunk: unknown;
  readonly encoding: BufferEncoding;
}

export class PacedHttpAgent extends HttpAgent {
  override createConnection(options: ClientRequestArgs, done?: Parameters<HttpAgent["createConnection"]>[1]) {
    return paced(super.createConnection(options, done));
  }
}

export class PacedHttpsAgent extends HttpsAgent {
  override createConnection(options: RequestOptions, done?: Parameters<HttpsAgent["createConnection"]>[1]) {
    return paced(super.createConnection(options, done));
  }
}

/** Both agents of the AWS client; `destroy()` of the client ends their connections. */
export function pacedAgents(options: AgentOptions) {
  return { httpAgent: new PacedHttpAgent(options), httpsAgent: new PacedHttpsAgent(options) };
}

/** The same stream, whose long writes go down in pieces. Nothing of a write is read once the stream is destroyed. */
export function paced<Stream extends Duplex | null | undefined>(stream: Stream): Stream {
  if (!stream) return stream;
  const write = stream._write.bind(stream);
  const writev = stream._writev?.bind(stream);
  stream._write = (chunk: unknown, encoding, done) => {
    if (isLong(chunk)) writeInPieces(stream, write, chunk, done);
    else write(chunk, encoding, done);
  };
  // Head and body of a request come together.
  stream._writev = (chunks, done) => {
    if (writev === undefined || chunks.some(({ chunk }) => isLong(chunk))) writeInTurn(stream, chunks, done);
    else writev(chunks, done);
  };
  return stream;
}

function isLong(chunk: unknown): chunk is Uint8Array {
  return chunk instanceof Uint8Array && chunk.length > bodyPieceBytes;
}

function writeInPieces(stream: Duplex, write: Duplex["_write"], bytes: Uint8Array, done: Done): void {
  let at = 0;
  const next = (): void => {
    if (stream.destroyed) {
      done(new Error("the connection was closed"));
      return;
    }
    const piece = bytes.subarray(at, at + bodyPieceBytes);
    at += piece.length;
    write(piece, "buffer" as BufferEncoding, (error) => {
      if (error || at >= bytes.length) done(error);
      else setTimeout(next, pauseMs);
    });
  };
  next();
}

/** A few of them: each one that is taken at once adds to the stack. */
function writeInTurn(stream: Duplex, chunks: readonly Waiting[], done: Done): void {
  let at = 0;
  const next = (error?: Error | null): void => {
    const waiting = chunks[at];
    at += 1;
    if (error || waiting === undefined) done(error);
    else stream._write(waiting.chunk, waiting.encoding, next);
  };
  next();
}
