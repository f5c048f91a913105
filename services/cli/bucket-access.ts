/*
 * The bucket of a running server for commands: one JSON request each (api-client.ts), long work followed as a job. Used by
 * commands/bucket.ts.
 */
import type {
  ApiBucketReport,
  ApiDeletedVolume,
  ApiRescuedVolume,
  ApiUsage,
} from "#shared/api/bucket-api.ts";
import type { ApiJob } from "#shared/api/past-api.ts";
import { ApiClient, defaultApi } from "./api-client.ts";
import type { CommandLine } from "./command-line.ts";

export class BucketAccess {
  private readonly client: ApiClient;

  constructor(line: CommandLine) {
    this.client = new ApiClient(line.values.get("api")?.[0] ?? defaultApi);
  }

  async check(quick: boolean): Promise<ApiJob> {
    return await this.client.call("POST", "/v1/bucket/check", { quick });
  }

  async collect(options: { readonly dryRun: boolean; readonly acceptClock: boolean }): Promise<ApiJob> {
    return await this.client.call("POST", "/v1/bucket/collect", options);
  }

  async scrub(
    volume: string,
    options: { readonly repair: boolean; readonly bytesPerSecond?: number; readonly node?: string },
  ): Promise<ApiJob> {
    return await this.client.call("POST", `/v1/volumes/${encodeURIComponent(volume)}/scrub`, options);
  }

  async job(id: string): Promise<ApiJob> {
    return await this.client.call("GET", `/v1/jobs/${encodeURIComponent(id)}`);
  }

  async report(jobId: string): Promise<ApiBucketReport> {
    return await this.client.call("GET", `/v1/bucket/reports/${encodeURIComponent(jobId)}`);
  }

  async usage(): Promise<ApiUsage> {
    return await this.client.call("GET", "/v1/bucket/usage");
  }

  async deleted(): Promise<readonly ApiDeletedVolume[]> {
    return await this.client.call("GET", "/v1/bucket/deleted");
  }

  async undelete(name: string, as: string | undefined): Promise<ApiRescuedVolume> {
    const query = as === undefined ? "" : `?as=${encodeURIComponent(as)}`;
    return await this.client.call("POST", `/v1/bucket/deleted/${encodeURIComponent(name)}/undelete${query}`);
  }
}
