/*
 * What the HTTP API shows and changes: the ports behind its routes, given by the process that serves them (`varve up`), and
 * the JSON forms of what they say. routes.ts uses both; the forms are those of shared/api/http-api.ts.
 */
import { errorBody } from "#shared/api/error-body.ts";
import type { ApiStatus, ApiVolume } from "#shared/api/http-api.ts";
import type { ConnectionRegister } from "#shared/ports/connection-register.ts";
import type { VolumeAdministration, VolumeView } from "#shared/ports/volume-administration.ts";

export interface ApiSubject {
  readonly volumes: VolumeAdministration;
  readonly connections: ConnectionRegister;
  /** NBD URIs of a volume, one per listening address. */
  readonly urisOf: (name: string) => readonly string[];
  /** What routes.ts does not count itself. */
  readonly process: () => Promise<Omit<ApiStatus, "volumes" | "volumesFailed" | "connections">>;
}

export function volumeBody(view: VolumeView, uris: readonly string[]): ApiVolume {
  return {
    id: view.id,
    name: view.name,
    sizeBytes: view.sizeBytes,
    durability: view.durability,
    createdAt: new Date(view.createdAtMs).toISOString(),
    condition: view.condition,
    failure: view.failure === null ? null : errorBody(view.failure),
    attachedClients: view.attachedClients,
    uris,
    imagePath: view.imagePath,
    logPath: view.logPath,
    figures: view.figures,
  };
}
