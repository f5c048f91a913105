/*
 * The two ways in which a command reaches volumes: through a running server (--api) or on the data directory itself
 * (--data, while no server runs on it). Commands (commands/volume.ts, commands/image.ts) are written once on this.
 */
import type { ApiConnection, ApiImageReport, ApiPolicy, ApiVolume } from "#shared/api/http-api.ts";
import { policyFrom } from "#shared/api/past-body.ts";
import { volumeBody } from "#shared/api/volume-body.ts";
import type { ReadPolicy, VolumeDurability } from "#shared/domain/volume.ts";
import type { PastAdministration } from "#shared/ports/past-administration.ts";
import type { VolumeAdministration } from "#shared/ports/volume-administration.ts";
import { ApiClient, defaultApi } from "./api-client.ts";
import { type CommandLine, UsageError } from "./command-line.ts";

export interface WantedVolume {
  readonly name: string;
  readonly sizeBytes: number;
  readonly durability: VolumeDurability;
  readonly reads: ReadPolicy | null;
  /** Null: as many as the server makes by itself. */
  readonly replicas: number | null;
  readonly policy: ApiPolicy;
}

/** Null: stays as it is. */
export interface VolumeChange {
  readonly durability: VolumeDurability | null;
  readonly reads: ReadPolicy | null;
  readonly policy: ApiPolicy;
}

export interface VolumeAccess {
  list(): Promise<readonly ApiVolume[]>;
  show(name: string): Promise<ApiVolume>;
  connections(name: string): Promise<readonly ApiConnection[]>;
  create(volume: WantedVolume): Promise<ApiVolume>;
  set(name: string, change: VolumeChange): Promise<ApiVolume>;
  resize(name: string, sizeBytes: number, shrink: boolean): Promise<ApiVolume>;
  delete(name: string): Promise<void>;
  image(operation: "check" | "adopt" | "discard", name: string): Promise<ApiImageReport>;
}

/** Runs `work` with the access that the command line asks for; a data directory is given back before it resolves. */
export async function withVolumes<T>(
  line: CommandLine,
  work: (volumes: VolumeAccess) => Promise<T>,
): Promise<T> {
  const data = line.values.get("data")?.[0];
  if (data === undefined)
    return await work(new ServerAccess(new ApiClient(line.values.get("api")?.[0] ?? defaultApi)));
  if (line.sources.get("api") === "--api") {
    throw new UsageError(
      ["--api and --data exclude each other"],
      "--api talks to a running server, --data works on the files of one that is stopped.",
    );
  }
  const { openVolumes } = await import("./single-machine.ts");
  const opened = await openVolumes({ dataDirectory: data, create: false });
  try {
    return await work(new FileAccess(opened.host));
  } finally {
    await opened.close();
  }
}

class ServerAccess implements VolumeAccess {
  private readonly client: ApiClient;

  constructor(client: ApiClient) {
    this.client = client;
  }

  async list(): Promise<readonly ApiVolume[]> {
    return await this.client.call("GET", "/v1/volumes");
  }

  async show(name: string): Promise<ApiVolume> {
    return await this.client.call("GET", pathOf(name));
  }

  async connections(name: string): Promise<readonly ApiConnection[]> {
    const all = await this.client.call<readonly ApiConnection[]>("GET", "/v1/connections");
    return all.filter((one) => one.volume === name);
  }

  async create(volume: WantedVolume): Promise<ApiVolume> {
    const { name, sizeBytes: size, durability, reads, replicas, policy } = volume;
    const wanted = { ...(reads === null ? {} : { reads }), ...(replicas === null ? {} : { replicas }) };
    return await this.client.call("POST", "/v1/volumes", { name, size, durability, ...wanted, ...policy });
  }

  async set(name: string, { durability, reads, policy }: VolumeChange): Promise<ApiVolume> {
    return await this.client.call("PATCH", pathOf(name), {
      ...(durability === null ? {} : { durability }),
      ...(reads === null ? {} : { reads }),
      ...policy,
    });
  }

  async resize(name: string, size: number, shrink: boolean): Promise<ApiVolume> {
    return await this.client.call("POST", `${pathOf(name)}/resize`, { size, shrink });
  }

  async delete(name: string): Promise<void> {
    await this.client.call("DELETE", pathOf(name));
  }

  async image(operation: "check" | "adopt" | "discard", name: string): Promise<ApiImageReport> {
    return await this.client.call("POST", `${pathOf(name)}/image/${operation}`);
  }
}

class FileAccess implements VolumeAccess {
  private readonly host: VolumeAdministration & { readonly past: PastAdministration };

  constructor(host: VolumeAdministration & { readonly past: PastAdministration }) {
    this.host = host;
  }

  async list(): Promise<readonly ApiVolume[]> {
    return this.host.list().map((view) => volumeBody(view, []));
  }

  async show(name: string): Promise<ApiVolume> {
    return volumeBody(this.host.show(name), []);
  }

  async connections(): Promise<readonly ApiConnection[]> {
    return [];
  }

  async create(volume: WantedVolume): Promise<ApiVolume> {
    const { replicas, reads, ...rest } = volume;
    if (replicas !== null && replicas !== 1) {
      throw new UsageError(
        ["--replicas and --data exclude each other"],
        "A data directory is one machine's.",
      );
    }
    return volumeBody(
      await this.host.create({ ...rest, reads: reads ?? undefined, policy: policyFrom(volume.policy) }),
      [],
    );
  }

  async set(name: string, { durability, reads, policy }: VolumeChange): Promise<ApiVolume> {
    const change = policyFrom(policy);
    if (reads !== null) await this.host.setReads(name, reads);
    if (durability !== null) await this.host.setDurability(name, durability);
    if (Object.keys(change).length > 0) await this.host.past.setPolicy(name, change);
    return volumeBody(this.host.show(name), []);
  }

  async resize(name: string, sizeBytes: number, shrink: boolean): Promise<ApiVolume> {
    return volumeBody(await this.host.resize(name, sizeBytes, shrink), []);
  }

  async delete(name: string): Promise<void> {
    await this.host.delete(name);
  }

  async image(operation: "check" | "adopt" | "discard", name: string): Promise<ApiImageReport> {
    if (operation === "check") return await this.host.checkImage(name);
    if (operation === "adopt") return await this.host.adoptImage(name);
    return await this.host.discardImage(name);
  }
}

function pathOf(name: string): string {
  return `/v1/volumes/${encodeURIComponent(name)}`;
}
