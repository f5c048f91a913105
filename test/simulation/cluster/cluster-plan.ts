/*
 * What a seed of the cluster world is made of: how many of what, how long, and the names that all its parts use. Drawn by
 * cluster-world.ts.
 */
import type { SeededRandom } from "../scheduler.ts";

export const volumeName = "disk0";
export const poolName = "main";
export const poolDirectory = "/pool";

/** Of the machine, which a gateway and a node may share. */
export function hostOf(process: string, { sharedHosts }: ClusterPlan): string {
  const number = Number(process.slice(1));
  return number <= sharedHosts ? `h${number}` : process;
}

export interface ClusterPlan {
  readonly gateways: number;
  readonly nodes: number;
  readonly clients: number;
  readonly cells: number;
  readonly rounds: number;
  readonly roundMs: number;
  readonly thinkMs: number;
  readonly memoryBytes: number;
  /** The volume's policy: a read needs a lease that lasts. */
  readonly strictReads: boolean;
  /** So many gateways have a storage node on their host, whose image they may read themselves. */
  readonly sharedHosts: number;
  /** The first of them goes by the same host's name, but its files are another machine's: a container. */
  readonly foreignFiles: boolean;
}

export function planOf(random: SeededRandom): ClusterPlan {
  const clients = random.integer(1, 4);
  const gateways = random.integer(2, 4);
  const nodes = random.integer(1, 4);
  return {
    gateways,
    nodes,
    clients,
    cells: 8 * random.integer(clients * 2, 24),
    rounds: random.integer(2, 5),
    roundMs: random.pick([5000, 12_000, 25_000]),
    thinkMs: random.pick([50, 200, 600]),
    memoryBytes: 1024 * 1024 * random.pick([6, 16]),
    strictReads: random.chance(0.3),
    sharedHosts: random.chance(0.2) ? 0 : Math.min(gateways, nodes),
    foreignFiles: random.chance(0.15),
  };
}
