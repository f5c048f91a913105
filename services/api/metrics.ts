/*
 * Plain counters as Prometheus text (exposition format 0.0.4). routes.ts serves it at /metrics. Engines only bump numbers;
 * this is the one place that gives them public names: varve_<area>_<counter>.
 */
import type { ConnectionRegister } from "#shared/ports/connection-register.ts";
import type { VolumeView } from "#shared/ports/volume-administration.ts";

const snake = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

class MetricText {
  private readonly lines: string[] = [];
  private readonly typed = new Set<string>();

  add(name: string, type: "gauge" | "counter", value: number, volume?: string): void {
    if (!this.typed.has(name)) this.lines.push(`# TYPE ${name} ${type}`);
    this.typed.add(name);
    this.lines.push(`${name}${volume === undefined ? "" : `{volume="${volume}"}`} ${value}`);
  }

  text(): string {
    return `${this.lines.join("\n")}\n`;
  }
}

export function metricsText(
  volumes: readonly VolumeView[],
  connections: ConnectionRegister,
  memory: { readonly rss: number },
  bucketRequests: Readonly<Record<string, number>>,
): string {
  const metrics = new MetricText();
  metrics.add("varve_volumes", "gauge", volumes.length);
  metrics.add("varve_connections", "gauge", connections.connections().length);
  metrics.add("varve_process_resident_bytes", "gauge", memory.rss);
  for (const [name, value] of Object.entries(connections.totals())) {
    metrics.add(`varve_nbd_${snake(name)}`, "counter", value);
  }
  for (const [name, value] of Object.entries(bucketRequests)) {
    metrics.add(`varve_bucket_${snake(name)}`, "counter", value);
  }
  const gauges: readonly (readonly [string, (view: VolumeView) => number | undefined])[] = [
    ["up", (view) => (view.condition === "serving" || view.condition === "busy" ? 1 : 0)],
    ["size_bytes", (view) => view.sizeBytes],
    ["attached_clients", (view) => view.attachedClients],
    ["image_allocated_bytes", (view) => view.figures?.imageAllocatedBytes],
    ["log_disk_bytes", (view) => view.figures?.logDiskBytes],
    ["log_last_lsn", (view) => view.figures?.lastLsn],
    ["log_durable_lsn", (view) => view.figures?.durableLsn],
    ["applied_lsn", (view) => view.figures?.appliedLsn],
    ["checkpoint_lsn", (view) => view.figures?.checkpointLsn],
    ["archived_lsn", (view) => view.past?.archivedLsn],
    ["held_lsn", (view) => view.past?.heldLsn],
    ["remote_extents", (view) => view.past?.extents?.remote],
  ];
  for (const [name, value] of gauges) {
    for (const view of volumes) {
      const figure = value(view);
      if (figure !== undefined) metrics.add(`varve_volume_${name}`, "gauge", figure, view.name);
    }
  }
  const counters = new Set(volumes.flatMap((view) => Object.keys(view.figures?.counters ?? {})));
  for (const name of [...counters].sort()) {
    for (const view of volumes) {
      const figure = view.figures?.counters[name];
      if (figure !== undefined) metrics.add(`varve_volume_${snake(name)}`, "counter", figure, view.name);
    }
  }
  return metrics.text();
}
