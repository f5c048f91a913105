/*
 * What a lab file says, checked, each part with its line for messages. Read by services/cli/apply/lab-reader.ts, turned into steps by
 * lab-plan.ts. What the file leaves out is undefined here, and stays as it is. Rules: docs/specs/apply.md. Pure.
 */
import type { HistoryPolicy } from "./history-record.ts";
import type { ReadPolicy, VolumeDurability } from "./volume.ts";
import type { SnapshotSchedule } from "./volume-orders.ts";

export interface LabPool {
  readonly name: string;
  readonly line: number;
  /** 0: no limit. */
  readonly quotaBytes?: number;
  readonly tags?: readonly string[];
}

export interface LabNode {
  readonly name: string;
  readonly line: number;
  readonly drained?: boolean;
  readonly pools: readonly LabPool[];
}

export interface LabVolume {
  readonly name: string;
  readonly line: number;
  /** Where each key stands, by the key's name in the file. */
  readonly lines: Readonly<Record<string, number>>;
  readonly sizeBytes: number;
  readonly durability?: VolumeDurability;
  readonly reads?: ReadPolicy;
  readonly policy: Partial<HistoryPolicy>;
  readonly replicas?: number;
  readonly tags?: readonly string[];
  readonly logReplicas?: number;
  readonly schedules?: readonly SnapshotSchedule[];
}

export interface LabFile {
  readonly lab: string;
  readonly nodes: readonly LabNode[];
  readonly volumes: readonly LabVolume[];
}

export interface LabMistake {
  readonly line: number;
  readonly text: string;
}

export const labDefault = "lab";
