/*
 * From a lab file and what there is to the steps that make the one the other, or to the mistakes that keep it from that: then there are no
 * steps. The state that all steps lead to has no steps (docs/specs/apply.md#rules). Called by services/cli/commands/apply.ts. Pure.
 */
import { exactByteSize } from "./byte-size.ts";
import type { HistoryPolicy } from "./history-record.ts";
import type { LabFile, LabMistake, LabNode, LabPool, LabVolume } from "./lab-file.ts";
import type { ReadPolicy, VolumeDurability } from "./volume.ts";
import type { OrdersChange, VolumeOrders } from "./volume-orders.ts";

export interface StateNode {
  readonly name: string;
  readonly drained: boolean;
  readonly pools: readonly {
    readonly name: string;
    readonly quotaBytes: number | null;
    readonly tags: readonly string[];
  }[];
}

export interface StateVolume {
  readonly name: string;
  readonly sizeBytes: number;
  readonly durability: VolumeDurability;
  readonly reads: ReadPolicy;
  /** Null: it keeps no history. */
  readonly policy: HistoryPolicy | null;
  readonly orders: VolumeOrders;
  /** Without those that leave. */
  readonly replicas: number;
}

export interface LabState {
  /** Null: one machine. */
  readonly nodes: readonly StateNode[] | null;
  readonly volumes: readonly StateVolume[];
}

/** What a `set` changes; what is not in it stays. */
export interface SetVolume {
  readonly durability?: VolumeDurability;
  readonly reads?: ReadPolicy;
  readonly policy: Partial<HistoryPolicy>;
  readonly orders: OrdersChange;
}

export type LabStep =
  | { readonly kind: "pools"; readonly node: string; readonly pools: readonly LabPool[] }
  | { readonly kind: "undrain" | "drain"; readonly node: string }
  | { readonly kind: "create"; readonly volume: LabVolume; readonly lab: string }
  | { readonly kind: "resize"; readonly name: string; readonly fromBytes: number; readonly sizeBytes: number }
  | { readonly kind: "set"; readonly name: string; readonly change: SetVolume }
  | { readonly kind: "replica"; readonly name: string }
  | { readonly kind: "delete"; readonly name: string };

export interface LabPlan {
  readonly steps: readonly LabStep[];
  /** Not empty: there are no steps. In the file's order. */
  readonly mistakes: readonly LabMistake[];
  /** For people: what the file no longer names. */
  readonly notes: readonly string[];
}

export function planLab(file: LabFile, state: LabState, prune: boolean): LabPlan {
  const mistakes = [
    ...nodeMistakes(file, state),
    ...file.volumes.flatMap((one) => volumeMistakes(one, state)),
  ];
  if (mistakes.length > 0) {
    return { steps: [], mistakes: mistakes.sort((a, b) => a.line - b.line), notes: [] };
  }
  const found = new Map(state.volumes.map((volume) => [volume.name, volume]));
  const missing = file.volumes.filter(({ name }) => !found.has(name));
  const wanted = new Set(file.volumes.map(({ name }) => name));
  const gone = state.volumes.filter(({ name, orders }) => orders.lab === file.lab && !wanted.has(name));
  const steps: LabStep[] = [
    ...file.nodes.flatMap((node) => poolSteps(node, state)),
    ...file.nodes.flatMap((node) => drainSteps(node, state, false)),
    ...missing.map((volume): LabStep => ({ kind: "create", volume, lab: file.lab })),
    ...file.volumes.flatMap((volume) => {
      const present = found.get(volume.name);
      return present === undefined ? [] : volumeSteps(volume, present);
    }),
    ...file.nodes.flatMap((node) => drainSteps(node, state, true)),
    ...(prune ? gone.map(({ name }): LabStep => ({ kind: "delete", name })) : []),
  ];
  const notes = prune
    ? []
    : gone.map(
        ({ name }) => `${name} was made by lab ${file.lab} and is not in the file: --prune deletes it`,
      );
  return { steps, mistakes: [], notes };
}

function nodeMistakes({ nodes }: LabFile, state: LabState): LabMistake[] {
  const { nodes: known } = state;
  if (known === null) {
    return nodes.map(({ name, line }) => ({
      line,
      text: `nodes.${name}: one machine has no storage nodes; ask a varve api process (--api)`,
    }));
  }
  return nodes.flatMap((node) => {
    const found = known.find(({ name }) => name === node.name);
    if (found === undefined) {
      const names = known.length === 0 ? "there are none yet" : known.map(({ name }) => name).join(", ");
      return [
        {
          line: node.line,
          text: `nodes.${node.name} was never started: start varve storage there (nodes: ${names})`,
        },
      ];
    }
    return node.pools
      .filter((pool) => !found.pools.some(({ name }) => name === pool.name))
      .map(({ name, line }) => ({
        line,
        text: `nodes.${node.name} has no pool ${name} (pools: ${found.pools.map((pool) => pool.name).join(", ")})`,
      }));
  });
}

function volumeMistakes(volume: LabVolume, { nodes, volumes }: LabState): LabMistake[] {
  const mistakes: LabMistake[] = [];
  const at = (key: string, text: string): void => {
    mistakes.push({ line: volume.lines[key] ?? volume.line, text: `volumes.${volume.name}.${key}: ${text}` });
  };
  if (nodes === null) {
    if ((volume.replicas ?? 1) > 1) at("replicas", "one machine keeps one image");
    if ((volume.tags ?? []).length > 0) at("tags", "one machine has no pools to choose from");
    if (volume.logReplicas !== undefined) at("log-replicas", "one machine keeps its log itself");
    if (volume.reads === "available") at("reads", "one machine's reads are always strict");
  } else if (volume.durability === "flush") {
    at(
      "durability",
      "a cluster has durability write only: a client that fails over can't know of lost answers",
    );
  }
  const present = volumes.find(({ name }) => name === volume.name);
  if (present === undefined) return mistakes;
  if (volume.sizeBytes < present.sizeBytes) {
    const size = exactByteSize(present.sizeBytes);
    at(
      "size",
      `it has ${size} already, and apply never shrinks; varve volume resize --shrink does, on one machine`,
    );
  }
  if (present.policy === null && Object.keys(volume.policy).length > 0) {
    const key = ["history", "residency", "cold-after", "bucket-away"].find((one) => one in volume.lines);
    at(key ?? "history", "the volume keeps no history here: there is no bucket");
  }
  if (nodes !== null && volume.replicas !== undefined && volume.replicas < present.replicas) {
    at("replicas", `it has ${present.replicas}; varve replica remove says which of them goes`);
  }
  return mistakes;
}

function poolSteps(node: LabNode, { nodes }: LabState): LabStep[] {
  const known = nodes?.find(({ name }) => name === node.name)?.pools ?? [];
  const pools = node.pools.filter(({ name, quotaBytes, tags }) => {
    const pool = known.find((one) => one.name === name);
    const sameQuota = quotaBytes === undefined || quotaBytes === (pool?.quotaBytes ?? 0);
    return !(sameQuota && (tags === undefined || sameNames(tags, pool?.tags ?? [])));
  });
  return pools.length === 0 ? [] : [{ kind: "pools", node: node.name, pools }];
}

function drainSteps({ name, drained }: LabNode, { nodes }: LabState, wanted: boolean): LabStep[] {
  const present = nodes?.find((node) => node.name === name)?.drained ?? false;
  if (drained !== wanted || present === wanted) return [];
  return [{ kind: wanted ? "drain" : "undrain", node: name }];
}

function volumeSteps(volume: LabVolume, present: StateVolume): LabStep[] {
  const { name, sizeBytes, replicas = 0 } = volume;
  const change = changeOf(volume, present);
  const { policy, orders, ...rest } = change;
  const sets = [policy, orders, rest].some((part) => Object.keys(part).length > 0);
  const missing = Math.max(0, replicas - present.replicas);
  return [
    ...(sets ? [{ kind: "set", name, change } as const] : []),
    ...(sizeBytes > present.sizeBytes
      ? [{ kind: "resize", name, fromBytes: present.sizeBytes, sizeBytes } as const]
      : []),
    ...Array.from({ length: missing }, () => ({ kind: "replica", name }) as const),
  ];
}

function changeOf(volume: LabVolume, present: StateVolume): SetVolume {
  const { durability, reads, tags, logReplicas, schedules } = volume;
  const { orders } = present;
  const policy = Object.fromEntries(
    Object.entries(volume.policy).filter(
      ([key, value]) => present.policy?.[key as keyof HistoryPolicy] !== value,
    ),
  );
  return {
    ...(durability === undefined || durability === present.durability ? {} : { durability }),
    ...(reads === undefined || reads === present.reads ? {} : { reads }),
    policy,
    orders: {
      ...(tags === undefined || sameNames(tags, orders.tags) ? {} : { tags }),
      ...(logReplicas === undefined || logReplicas === orders.logReplicas ? {} : { logReplicas }),
      ...(schedules === undefined ||
      sameNames(schedules.map(scheduleText), orders.schedules.map(scheduleText))
        ? {}
        : { schedules }),
    },
  };
}

const scheduleText = ({ name, everyMs, keep }: VolumeOrders["schedules"][number]): string =>
  `${name} ${everyMs} ${keep}`;

function sameNames(some: readonly string[], others: readonly string[]): boolean {
  return [...some].sort().join(" ") === [...others].sort().join(" ");
}
