// The api of the nemesis' lab and its client, who asks again while something is away: points, rollbacks, clones, tiering, jobs, by HTTP as a
// program of a user would. Made by nemesis-past.ts, asked by nemesis-steps.ts and nemesis-archive.ts.
import { type ClusterProcess, type Lab, sleep } from "../tools/cluster-process.ts";
import { freePort } from "../tools/free-port.ts";
import type { S3Server } from "../tools/s3-servers.ts";

/** How the api answered: with what was asked for, or with an error of its own. */
export interface ApiAnswer {
  readonly status: number;
  readonly body: unknown;
}

interface ApiError {
  readonly tag: string;
  readonly kind: string;
  readonly message: string;
}

interface ApiJob {
  readonly id: string;
  readonly doneBytes: number;
  readonly state: string;
  readonly note: string;
  readonly failure: ApiError | null;
}

interface ApiCheck {
  readonly report: {
    readonly problems: number;
    readonly findings: readonly { readonly key: string; readonly problem: string }[];
  };
}

export interface ApiVolume {
  readonly name: string;
  readonly past: { readonly residency: string } | null;
}

/** Longer than anything that heals by itself: 30 s for the bucket and as much for the log. */
const patienceMs = 90_000;
const answerMs = 60_000;
const againMs = 300;

export class NemesisApi {
  readonly #lab: Lab;
  readonly #host: string;
  readonly #bucket: S3Server;
  #address = "";
  #process: ClusterProcess | null = null;

  constructor(lab: Lab, host: string, bucket: S3Server) {
    this.#lab = lab;
    this.#host = host;
    this.#bucket = bucket;
  }

  async start(): Promise<void> {
    const http = `${this.#host}:${await freePort()}`;
    const settings = { http, health: "off", bucket: this.#bucket.url() };
    this.#process = await this.#lab.start("api", "front", settings, this.#bucket.env);
    this.#address = `http://${http}`;
  }

  async kill(): Promise<void> {
    await this.#process?.kill();
  }

  get processes(): readonly ClusterProcess[] {
    return this.#process === null ? [] : [this.#process];
  }

  /** Once. Rejects where no answer comes, as of an api that was killed. */
  async ask(method: string, path: string, body?: unknown): Promise<ApiAnswer> {
    const sent = body === undefined ? {} : { body: JSON.stringify(body) };
    const response = await fetch(`${this.#address}/v1/${path}`, {
      method,
      headers: { "content-type": "application/json" },
      ...sent,
      signal: AbortSignal.timeout(answerMs),
    });
    const text = await response.text();
    return { status: response.status, body: text === "" ? null : (JSON.parse(text) as unknown) };
  }

  /** Until it is not refused with Retry any more; a request that was answered by nobody may have been done, and is asked again, too. */
  async insist(method: string, path: string, body?: unknown): Promise<ApiAnswer> {
    const endMs = performance.now() + patienceMs;
    for (;;) {
      const answer = await this.ask(method, path, body).catch((cause: unknown) => cause as Error);
      if (!(answer instanceof Error) && errorIn(answer)?.kind !== "Retry") return answer;
      if (performance.now() > endMs) {
        const why = answer instanceof Error ? answer.message : JSON.stringify(answer.body);
        throw new Error(`${method} ${path}: not done within ${patienceMs} ms: ${why}`);
      }
      await sleep(againMs);
    }
  }

  /** As insist(); throws what it is refused with. */
  async done<T>(method: string, path: string, body?: unknown): Promise<T> {
    const answer = await this.insist(method, path, body);
    const error = errorIn(answer);
    if (error !== null) throw new Error(`${method} ${path}: ${error.tag}: ${error.message}`);
    return answer.body as T;
  }

  async volumes(): Promise<readonly ApiVolume[]> {
    return await this.done<readonly ApiVolume[]>("GET", "volumes");
  }

  /** What of the bucket is missing or damaged, in words. */
  async bucketProblems(): Promise<readonly string[]> {
    const { id } = await this.job("bucket/check", {});
    const { report } = await this.done<ApiCheck>("GET", `bucket/reports/${id}`);
    return report.problems === 0
      ? []
      : report.findings.map(({ key, problem }) => `bucket: ${key}: ${problem}`);
  }

  /**
   * Begins work and follows it to its end; the job then. An api that was started again knows nothing of it: it is asked again. What goes on
   * is waited for: a check after 200 rounds reads 15 GB.
   */
  async job(path: string, body?: unknown): Promise<ApiJob> {
    let endMs = performance.now() + patienceMs;
    let furthestBytes = 0;
    let begun = await this.done<ApiJob>("POST", path, body);
    for (;;) {
      if (begun.state === "done") return begun;
      if (begun.doneBytes > furthestBytes) {
        furthestBytes = begun.doneBytes;
        endMs = performance.now() + patienceMs;
      }
      const isLate = performance.now() > endMs;
      if (begun.state === "failed" && (begun.failure?.kind !== "Retry" || isLate)) {
        throw new Error(`POST ${path}: ${begun.failure?.tag}: ${begun.failure?.message}`);
      }
      if (isLate)
        throw new Error(
          `POST ${path}: ${begun.state}, no further for ${patienceMs} ms: ${JSON.stringify(begun)}`,
        );
      await sleep(againMs);
      const seen = begun.state === "failed" ? null : await this.insist("GET", `jobs/${begun.id}`);
      const isKnown = seen !== null && errorIn(seen) === null;
      begun = isKnown ? (seen.body as ApiJob) : await this.done<ApiJob>("POST", path, body);
    }
  }
}

/** Null: it is what was asked for. */
export function errorIn({ status, body }: ApiAnswer): ApiError | null {
  return status < 400 ? null : (body as ApiError);
}
