/*
 * What a process says of itself at /readyz, as Prometheus text (exposition format 0.0.4) for /metrics of the same server: one number each for
 * the process, and for each volume or replica that it tells of. health-server.ts serves it; the api's own /metrics is services/api/metrics.ts.
 */
import type { Readiness } from "./health-server.ts";

/** Numbers that only grow beside those under `counters`. */
const counters = new Set(["unprovenReads"]);

const snake = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

export function healthMetrics({ ready, degraded, detail }: Readiness): string {
  const metrics = new Map<string, { readonly type: string; readonly lines: string[] }>();
  const add = (name: string, isCounter: boolean, labels: string, value: number): void => {
    const metric = metrics.get(name) ?? { type: isCounter ? "counter" : "gauge", lines: [] };
    metrics.set(name, metric);
    metric.lines.push(`${name}${labels} ${value}`);
  };
  const addAll = (prefix: string, from: object, isCounter: boolean, labels: string): void => {
    for (const [key, value] of Object.entries(from)) {
      if (typeof value === "number")
        add(`${prefix}${snake(key)}`, isCounter || counters.has(key), labels, value);
    }
  };
  add("varve_ready", false, "", ready ? 1 : 0);
  if (degraded !== undefined) add("varve_degraded", false, "", degraded.length);
  addAll("varve_", detail, false, "");
  for (const list of Object.values(detail).filter(Array.isArray)) {
    for (const one of list as unknown[]) {
      if (typeof one !== "object" || one === null) continue;
      const label = labelOf(one as Readonly<Record<string, unknown>>);
      if (label === null) continue;
      addAll("varve_volume_", one, false, label);
      if ("counters" in one) addAll("varve_volume_", one.counters as object, true, label);
    }
  }
  return [...metrics]
    .flatMap(([name, { type, lines }]) => [`# TYPE ${name} ${type}`, ...lines])
    .map((line) => `${line}\n`)
    .join("");
}

/** Names of volumes and ids hold nothing that would have to be escaped. */
function labelOf({ name, volume, volumeId }: Readonly<Record<string, unknown>>): string | null {
  const label = [name, volume, volumeId].find((one) => typeof one === "string");
  return label === undefined ? null : `{volume="${label}"}`;
}
