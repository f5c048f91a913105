/*
 * Names inside a data directory. The volume host, the catalogue adapter, the CLI and doctor take them from here, so that
 * a file has one name. DATA/catalog.json, DATA/varve.lock, DATA/varve.reserve, DATA/volumes/NAME/{disk.raw, log/}. Pure.
 */

export const dataLayout = {
  catalog: "catalog.json",
  lock: "varve.lock",
  reserve: "varve.reserve",
  volumes: "volumes",
  image: "disk.raw",
  log: "log",
} as const;

export interface VolumePaths {
  readonly directory: string;
  readonly image: string;
  readonly log: string;
}

export function volumePaths(dataDirectory: string, name: string): VolumePaths {
  const directory = `${dataDirectory}/${dataLayout.volumes}/${name}`;
  return { directory, image: `${directory}/${dataLayout.image}`, log: `${directory}/${dataLayout.log}` };
}

/** The checkpoint stands beside the image it speaks of (docs/formats/checkpoint.md). */
export function checkpointPathOf(imagePath: string): string {
  return `${imagePath}.checkpoint`;
}
