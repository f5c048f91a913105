/*
 * Talks to a running server: one JSON request over Node's http, errors turned back into VarveErrors. volume-access.ts uses
 * it. Not Effect's derived client: that loads 0.2 s of schemas for one small request, and a command should feel instant.
 */
import { request } from "node:http";
import { errorFromBody, isErrorBody } from "#shared/api/error-body.ts";
import { VarveError } from "#shared/domain/errors.ts";

export const defaultApi = "http://127.0.0.1:8080";
const answerMs = 120_000;
const answerBytesMax = 64 * 1024 * 1024;

export class ApiClient {
  private readonly base: URL;

  constructor(base: string) {
    this.base = baseUrl(base);
  }

  get address(): string {
    return this.base.origin;
  }

  async call<T>(method: "GET" | "POST" | "PATCH" | "DELETE", path: string, body?: unknown): Promise<T> {
    const { status, text } = await this.exchange(method, path, body);
    const answer = text === "" ? undefined : this.parse(text, status);
    if (status >= 200 && status < 300) return answer as T;
    if (isErrorBody(answer)) throw errorFromBody(answer);
    throw this.notVarve(`status ${status}`);
  }

  private parse(text: string, status: number): unknown {
    try {
      return JSON.parse(text);
    } catch (cause) {
      throw this.notVarve(`status ${status} and no JSON`, cause);
    }
  }

  private async exchange(
    method: string,
    path: string,
    body: unknown,
  ): Promise<{ readonly status: number; readonly text: string }> {
    const content = body === undefined ? undefined : JSON.stringify(body);
    return await new Promise((resolve, reject) => {
      const call = request(
        new URL(path, this.base),
        {
          method,
          timeout: answerMs,
          headers:
            content === undefined
              ? {}
              : { "content-type": "application/json", "content-length": Buffer.byteLength(content) },
        },
        (response) => {
          const chunks: Buffer[] = [];
          let bytes = 0;
          response.on("data", (chunk: Buffer) => {
            bytes += chunk.byteLength;
            if (bytes > answerBytesMax) response.destroy(this.notVarve("an endless answer"));
            chunks.push(chunk);
          });
          response.on("error", (cause) =>
            reject(cause instanceof VarveError ? cause : this.unreachable(cause)),
          );
          response.on("end", () => {
            resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString("utf8") });
          });
        },
      );
      call.on("timeout", () => call.destroy(new Error(`no answer within ${answerMs / 1000} s`)));
      call.on("error", (cause) => reject(cause instanceof VarveError ? cause : this.unreachable(cause)));
      call.end(content);
    });
  }

  private unreachable(cause: Error): VarveError {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === "ECONNRESET" || code === "EPIPE") return this.answerLost(cause);
    const what = code === "ECONNREFUSED" ? "nothing listens there" : cause.message;
    return new VarveError("ServerUnreachableError", "Retry", `no Varve server at ${this.address}: ${what}`, {
      hint: "Start one (varve up), say where it is (--api URL or VARVE_API), or work on the files (--data DIR).",
      fields: { api: this.address },
      cause,
    });
  }

  /** It was there: it may have done what it was asked for. */
  private answerLost(cause: Error): VarveError {
    const what = `the Varve server at ${this.address} ended without an answer: ${cause.message}`;
    return new VarveError("AnswerLostError", "Retry", what, {
      hint: "It may have been stopped or killed, and may have done what it was asked for: look (varve volume list, varve job list) before you try again.",
      fields: { api: this.address },
      cause,
    });
  }

  private notVarve(what: string, cause?: unknown): VarveError {
    return new VarveError("NotAVarveServerError", "Invalid", `${this.address} answered with ${what}`, {
      hint: "Is that a Varve server's HTTP address? See varve up --http and --api.",
      fields: { api: this.address },
      cause,
    });
  }
}

function baseUrl(text: string): URL {
  const full = /^[a-z]+:\/\//i.test(text) ? text : `http://${text}`;
  if (URL.canParse(full)) {
    const url = new URL(full);
    if (url.protocol === "http:" && url.hostname !== "") return url;
  }
  throw new VarveError(
    "ApiAddressError",
    "Invalid",
    `--api: ${JSON.stringify(text)} is not an http address`,
    {
      hint: `For example: --api ${defaultApi}.`,
      fields: { api: text },
    },
  );
}
