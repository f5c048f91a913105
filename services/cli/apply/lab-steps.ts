/*
 * The state of a running server for lab-plan.ts, and its steps as calls of the HTTP API, one each. Called by commands/apply.ts.
 */
import type { ApiNode, ApiReplica } from "#shared/api/cluster-api.ts";
import type { ApiPolicy, ApiVolume } from "#shared/api/http-api.ts";
import { exactByteSize } from "#shared/domain/byte-size.ts";
import { VarveError } from "#shared/domain/errors.ts";
import type { HistoryPolicy } from "#shared/domain/history-record.ts";
import type { LabState, LabStep, SetVolume, StateVolume } from "#shared/domain/lab-plan.ts";
import { timeSpanFrom, timeSpanText } from "#shared/domain/time-span.ts";
import type { OrdersChange, SnapshotSchedule } from "#shared/domain/volume-orders.ts";
import type { ApiClient } from "../api-client.ts";

export async function labState(client: ApiClient): Promise<LabState> {
  const all = await client.call<readonly ApiVolume[]>("GET", "/v1/volumes");
  // One that is deleting is gone for people; a step that needs its name is told by the server until when.
  const volumes = all.filter(({ condition }) => condition !== "deleting");
  const nodes = await unlessOneMachine(client.call<readonly ApiNode[]>("GET", "/v1/nodes"));
  const replicas = nodes === null ? [] : await client.call<readonly ApiReplica[]>("GET", "/v1/replicas");
  return { nodes, volumes: volumes.map((volume) => stateVolume(volume, replicas)) };
}

async function unlessOneMachine<T>(asked: Promise<T>): Promise<T | null> {
  try {
    return await asked;
  } catch (cause) {
    if (cause instanceof VarveError && cause._tag === "NotAClusterError") return null;
    throw cause;
  }
}

function stateVolume(volume: ApiVolume, replicas: readonly ApiReplica[]): StateVolume {
  const { name, sizeBytes, durability, reads, past } = volume;
  const { lab, tags, logReplicas, schedules } = volume.orders;
  return {
    name,
    sizeBytes,
    durability,
    reads,
    policy:
      past === null
        ? null
        : {
            historyMs: timeSpanFrom(past.history, "history"),
            residency: past.residency,
            coldAfterMs: timeSpanFrom(past.coldAfter, "coldAfter"),
            bucketAway: past.bucketAway,
          },
    orders: {
      lab,
      tags,
      logReplicas,
      schedules: schedules.map((one) => ({
        name: one.name,
        everyMs: timeSpanFrom(one.every, one.name),
        keep: one.keep,
      })),
    },
    replicas: replicas.filter((one) => one.volume === name && !one.leaving).length,
  };
}

export async function runStep(client: ApiClient, step: LabStep): Promise<void> {
  switch (step.kind) {
    case "pools": {
      const pools = step.pools.map(({ name, quotaBytes, tags }) => ({
        name,
        ...(quotaBytes === undefined ? {} : { quota: quotaBytes === 0 ? null : quotaBytes }),
        ...(tags === undefined ? {} : { tags }),
      }));
      await client.call("PATCH", `/v1/nodes/${encodeURIComponent(step.node)}`, { pools });
      return;
    }
    case "drain":
      await client.call("POST", `/v1/nodes/${encodeURIComponent(step.node)}/drain`);
      return;
    case "undrain":
      await client.call("DELETE", `/v1/nodes/${encodeURIComponent(step.node)}/drain`);
      return;
    case "create": {
      const { name, sizeBytes, durability, reads, replicas, policy } = step.volume;
      await client.call("POST", "/v1/volumes", {
        name,
        size: sizeBytes,
        lab: step.lab,
        ...(durability === undefined ? {} : { durability }),
        ...(reads === undefined ? {} : { reads }),
        ...(replicas === undefined ? {} : { replicas }),
        ...ordersBody(step.volume),
        ...policyBody(policy),
      });
      return;
    }
    case "set": {
      const { policy, orders, ...rest } = step.change;
      await client.call("PATCH", pathOf(step.name), {
        ...rest,
        ...ordersBody(orders),
        ...policyBody(policy),
      });
      return;
    }
    case "resize":
      await client.call("POST", `${pathOf(step.name)}/resize`, { size: step.sizeBytes });
      return;
    case "replica":
      await client.call("POST", `${pathOf(step.name)}/replicas`, {});
      return;
    case "delete":
      await client.call("DELETE", pathOf(step.name));
      return;
    default:
      step satisfies never;
  }
}

/** One line for people. */
export function stepText(step: LabStep): string {
  switch (step.kind) {
    case "pools":
      return step.pools
        .map(({ name, quotaBytes, tags }) => {
          const quota =
            quotaBytes === undefined
              ? []
              : [`quota ${quotaBytes === 0 ? "none" : exactByteSize(quotaBytes)}`];
          const tagged = tags === undefined ? [] : [`tags ${listText(tags)}`];
          return `node ${step.node}: pool ${name}: ${[...quota, ...tagged].join(", ")}`;
        })
        .join("; ");
    case "drain":
      return `node ${step.node}: drain`;
    case "undrain":
      return `node ${step.node}: undrain`;
    case "create":
      return `volume ${step.volume.name}: create, ${exactByteSize(step.volume.sizeBytes)}`;
    case "set":
      return `volume ${step.name}: set ${changeText(step.change)}`;
    case "resize":
      return `volume ${step.name}: resize from ${exactByteSize(step.fromBytes)} to ${exactByteSize(step.sizeBytes)}`;
    case "replica":
      return `volume ${step.name}: add a replica`;
    case "delete":
      return `volume ${step.name}: delete with all its data`;
    default:
      return step satisfies never;
  }
}

/** What failed at one step, for whoever ran them all: what the server says of the step is not said of the steps before it. */
export function stoppedAt(step: string, done: number, all: number, cause: unknown): unknown {
  if (!(cause instanceof VarveError)) return cause;
  const before =
    done === 0
      ? `None of ${all} steps is done; the same command begins again.`
      : `${done} of ${all} steps are done and stay; the same command goes on.`;
  return new VarveError(cause._tag, cause.kind, `${step}: ${cause.message}`, {
    hint: cause.hint === "" ? before : `${before} Of this step: ${cause.hint}`,
    fields: cause.fields,
    cause,
  });
}

function changeText({ policy, orders, durability, reads }: SetVolume): string {
  const parts: (string | null)[] = [
    durability === undefined ? null : `durability ${durability}`,
    reads === undefined ? null : `reads ${reads}`,
    ...Object.entries(policyBody(policy)).map(([key, value]) => `${key} ${value}`),
    orders.tags === undefined ? null : `tags ${listText(orders.tags)}`,
    orders.logReplicas === undefined ? null : `log replicas ${orders.logReplicas}`,
    orders.schedules === undefined ? null : `snapshots ${listText(orders.schedules.map(scheduleText))}`,
  ];
  return parts.filter((part) => part !== null).join(", ");
}

const scheduleText = ({ name, everyMs, keep }: SnapshotSchedule): string =>
  `${name} each ${timeSpanText(everyMs)}, ${keep} kept`;
const listText = (names: readonly string[]): string => (names.length === 0 ? "none" : names.join("; "));

function ordersBody({ tags, logReplicas, schedules }: OrdersChange): Record<string, unknown> {
  return {
    ...(tags === undefined ? {} : { tags }),
    ...(logReplicas === undefined ? {} : { logReplicas }),
    ...(schedules === undefined
      ? {}
      : { schedules: schedules.map(({ name, everyMs, keep }) => ({ name, every: everyMs, keep })) }),
  };
}

function policyBody({ historyMs, residency, coldAfterMs, bucketAway }: Partial<HistoryPolicy>): ApiPolicy {
  return {
    ...(historyMs === undefined ? {} : { history: timeSpanText(historyMs) }),
    ...(residency === undefined ? {} : { residency }),
    ...(coldAfterMs === undefined ? {} : { coldAfter: timeSpanText(coldAfterMs) }),
    ...(bucketAway === undefined ? {} : { bucketAway }),
  };
}

const pathOf = (name: string): string => `/v1/volumes/${encodeURIComponent(name)}`;
