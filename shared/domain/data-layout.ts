/*
 * Names inside a data directory. The volume host, the catalogue adapter, the CLI and doctor take them from here, so that
 * a file has one name. DATA/catalog.json, DATA/varve.lock, DATA/varve.reserve, DATA/volumes/NAME/{disk.raw, log/,
 * history.json, history.copy.json}, DATA/bucket/ where no other bucket was given. Pure.
 */

export const dataLayout = {
  catalog: "catalog.json",
  lock: "varve.lock",
  reserve: "varve.reserve",
  volumes: "volumes",
  rescue: "rescue.json",
  image: "disk.raw",
  log: "log",
  history: "history.json",
  historyCopy: "history.copy.json",
  bucket: "bucket",
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

/** What a volume keeps of its past (docs/formats/volume-history.md). */
export function historyPathOf(paths: VolumePaths): string {
  return `${paths.directory}/${dataLayout.history}`;
}

/** The same content, for when the file was torn. */
export function historyCopyPathOf(historyPath: string): string {
  return historyPath.slice(0, -dataLayout.history.length) + dataLayout.historyCopy;
}

/** The checkpoint stands beside the image it speaks of (docs/formats/checkpoint.md). */
export function checkpointPathOf(imagePath: string): string {
  return `${imagePath}.checkpoint`;
}

/** The image's name while any extent is not local: the file is not the disk then (docs/specs/residency.md). */
export function partialImagePathOf(imagePath: string): string {
  return `${imagePath}.partial`;
}

/** A copy of another replica on its way to become the image (docs/specs/replica-fill.md). */
export function fillPathOf(imagePath: string): string {
  return `${imagePath}.fill`;
}

/** What alone may fill it, as somebody chose: `bucket` or `peers`; beside a fill only. */
export function fillOriginPathOf(imagePath: string): string {
  return `${imagePath}.fill-from`;
}

/** When extents were last used, for tiering; of no use to anybody else (docs/formats/last-use.md). */
export function lastUsePathOf(imagePath: string): string {
  return `${imagePath}.last-use`;
}

/** Says whether a gateway on the same host may read the image directly (docs/formats/read-grant.md). */
export function readGrantPathOf(imagePath: string): string {
  return `${imagePath}.grant`;
}
