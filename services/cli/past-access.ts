/*
 * The past of a running server's volumes for commands: one JSON request each (api-client.ts). Unlike volume-access.ts there is
 * no way by the files alone: the past is read with the bucket, by the process that holds both.
 */

import type { ApiPolicy } from "#shared/api/http-api.ts";
import type { ApiChanges, ApiHistory, ApiJob, ApiSnapshot, ApiStartedChange } from "#shared/api/past-api.ts";
import type { VolumeDurability } from "#shared/domain/volume.ts";
import { ApiClient, defaultApi } from "./api-client.ts";
import type { CommandLine } from "./command-line.ts";

export class PastAccess {
  private readonly client: ApiClient;

  constructor(line: CommandLine) {
    this.client = new ApiClient(line.values.get("api")?.[0] ?? defaultApi);
  }

  async snapshots(volume: string): Promise<readonly ApiSnapshot[]> {
    return await this.client.call("GET", `${pathOf(volume)}/snapshots`);
  }

  async createSnapshot(volume: string, name: string): Promise<ApiSnapshot> {
    return await this.client.call("POST", `${pathOf(volume)}/snapshots`, { name });
  }

  async deleteSnapshot(volume: string, name: string): Promise<void> {
    await this.client.call("DELETE", `${pathOf(volume)}/snapshots/${encodeURIComponent(name)}`);
  }

  async history(
    volume: string,
    window: { readonly since?: string; readonly until?: string; readonly intervals?: string },
  ): Promise<ApiHistory> {
    return await this.client.call("GET", `${pathOf(volume)}/history${queryOf(window)}`);
  }

  async changes(volume: string, from: string, to: string): Promise<ApiChanges> {
    return await this.client.call("GET", `${pathOf(volume)}/changes${queryOf({ from, to })}`);
  }

  async clone(
    parent: string,
    wanted: ApiPolicy & {
      readonly name: string;
      readonly point: string;
      readonly size?: number;
      readonly durability?: VolumeDurability;
      readonly replicas?: number;
    },
  ): Promise<ApiStartedChange> {
    return await this.client.call("POST", `${pathOf(parent)}/clones`, wanted);
  }

  async rollback(volume: string, point: string, force: boolean): Promise<ApiStartedChange> {
    return await this.client.call("POST", `${pathOf(volume)}/rollback`, { point, force });
  }

  async fill(volume: string): Promise<ApiJob> {
    return await this.client.call("POST", `${pathOf(volume)}/fill`);
  }

  async tier(volume: string, coldAfter: number | undefined): Promise<ApiJob> {
    return await this.client.call(
      "POST",
      `${pathOf(volume)}/tier`,
      coldAfter === undefined ? {} : { coldAfter },
    );
  }

  async jobs(): Promise<readonly ApiJob[]> {
    return await this.client.call("GET", "/v1/jobs");
  }

  async job(id: string): Promise<ApiJob> {
    return await this.client.call("GET", `/v1/jobs/${encodeURIComponent(id)}`);
  }
}

function pathOf(volume: string): string {
  return `/v1/volumes/${encodeURIComponent(volume)}`;
}

function queryOf(values: Readonly<Record<string, string | undefined>>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) if (value !== undefined) query.set(name, value);
  const text = query.toString();
  return text === "" ? "" : `?${text}`;
}
