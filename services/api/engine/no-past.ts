/*
 * The past of volumes in a cluster: there is none, because the archiver runs in `varve up` only. Every call says so. Given to the
 * HTTP routes by the api process (services/api/cluster-layer.ts).
 */
import { VarveError } from "#shared/domain/errors.ts";
import type { JobView, PastAdministration } from "#shared/ports/past-administration.ts";

export class NoPast implements PastAdministration {
  snapshots = (): never => refuse();
  createSnapshot = async (): Promise<never> => refuse();
  deleteSnapshot = async (): Promise<never> => refuse();
  history = async (): Promise<never> => refuse();
  changes = async (): Promise<never> => refuse();
  readPoint = async (): Promise<never> => refuse();
  createFrom = async (): Promise<never> => refuse();
  rollback = async (): Promise<never> => refuse();
  fill = async (): Promise<never> => refuse();
  tier = async (): Promise<never> => refuse();
  setPolicy = async (): Promise<never> => refuse();
  jobs = (): readonly JobView[] => [];
  job = (): never => refuse();
}

function refuse(): never {
  throw new VarveError("NoPastInCluster", "Invalid", "volumes of a cluster keep no history", {
    hint: "Snapshots, points and buckets work with varve up on one machine. Nothing was changed.",
  });
}
