/*
 * Subjects of the messages between processes of one lab (docs/specs/cluster.md). Names hold no dots, so each is one part. Pure.
 */

/** Requests for bytes of a replica. */
export function replicaReadSubject(volumeId: string, node: string): string {
  return `varve.replica.${volumeId}.${node}.read`;
}

/** What a node says of a replica; `node` may be `*`. */
export function replicaStateSubject(volumeId: string, node: string): string {
  return `varve.replica.${volumeId}.${node}.state`;
}

/** What fills, comparisons and repairs ask of a replica. */
export function replicaCopySubject(volumeId: string, node: string): string {
  return `varve.replica.${volumeId}.${node}.copy`;
}

/** Collections that the api asks for, of the archiver that collects the bucket. */
export const bucketCollectSubject = "varve.bucket.collect";

/** What the api asks of the gateway that serves a volume. */
export function volumeHolderSubject(volumeId: string): string {
  return `varve.volume.${volumeId}.holder`;
}
