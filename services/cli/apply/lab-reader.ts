/*
 * A lab file from its text: every mistake is found, with its line, before anything is asked of a server. What each key means and may be is
 * docs/specs/apply.md#the-file. Called by commands/apply.ts; below it yaml-tree.ts.
 */
import { type ResidencyPolicy, residencies } from "#shared/domain/archive.ts";
import { parseByteSize } from "#shared/domain/byte-size.ts";
import { machineNameMistake } from "#shared/domain/cluster.ts";
import { type HistoryPolicy, spanMsMax } from "#shared/domain/history-record.ts";
import {
  type LabFile,
  type LabMistake,
  type LabNode,
  type LabPool,
  type LabVolume,
  labDefault,
} from "#shared/domain/lab-file.ts";
import { limits } from "#shared/domain/limits.ts";
import { parseTimeSpan } from "#shared/domain/time-span.ts";
import { durabilities, readPolicies, volumeNameMistake, volumeSizeMistake } from "#shared/domain/volume.ts";
import { type SnapshotSchedule, scheduleMistakes, tagsMistakes } from "#shared/domain/volume-orders.ts";
import { nearest } from "../nearest.ts";
import { readYaml, type Tree } from "./yaml-tree.ts";

export const labFileBytesMax = 1024 * 1024;

export interface ReadLab {
  readonly file: LabFile;
  /** In the file's order; not empty: the file is not used. */
  readonly mistakes: readonly LabMistake[];
}

export function readLab(text: string): ReadLab {
  const { tree, mistakes } = readYaml(text);
  const reader = new LabReader();
  const file = reader.read(tree);
  const all = [...mistakes, ...(mistakes.length > 0 ? [] : reader.mistakes)];
  return { file, mistakes: all.sort((a, b) => a.line - b.line) };
}

type Read = (value: Tree, at: string) => void;

class LabReader {
  readonly mistakes: LabMistake[] = [];

  read(tree: Tree): LabFile {
    let lab = labDefault;
    const nodes: LabNode[] = [];
    const volumes: LabVolume[] = [];
    this.map(tree, "", {
      lab: (value, at) => {
        lab = this.text(value, at);
        this.expect(value, at, machineNameMistake(lab));
      },
      nodes: (value) => this.each(value, "nodes", limits.volumesMax, (one) => nodes.push(this.node(one))),
      volumes: (value) =>
        this.each(value, "volumes", limits.volumesMax, (one) => volumes.push(this.volume(one))),
    });
    return { lab, nodes, volumes };
  }

  private node({ key: name, line, value }: Named): LabNode {
    this.expect({ line }, `nodes.${name}`, machineNameMistake(name));
    const node: { drained?: boolean } = {};
    const pools: LabPool[] = [];
    this.map(value, `nodes.${name}`, {
      drained: (value, at) => {
        if (value.kind === "value" && typeof value.value === "boolean") node.drained = value.value;
        else this.add(value, at, "is neither true nor false");
      },
      pools: (value, at) => this.each(value, at, limits.poolsMax, (one) => pools.push(this.pool(one, at))),
    });
    return { name, line, pools, ...node };
  }

  private pool({ key: name, line, value }: Named, above: string): LabPool {
    this.expect({ line }, `${above}.${name}`, machineNameMistake(name));
    const pool: { quotaBytes?: number; tags?: readonly string[] } = {};
    this.map(value, `${above}.${name}`, {
      quota: (value, at) => {
        pool.quotaBytes = this.text(value, at) === "none" ? 0 : this.size(value, at, ", or none");
      },
      tags: (value, at) => {
        pool.tags = this.tags(value, at, limits.poolTagsMax);
      },
    });
    return { name, line, ...pool };
  }

  private volume({ key: name, line, value }: Named): LabVolume {
    const place = `volumes.${name}`;
    this.expect({ line }, place, volumeNameMistake(name));
    const lines: Record<string, number> = {};
    const volume: Writable<Partial<LabVolume>> = {};
    const policy: Writable<Partial<HistoryPolicy>> = {};
    this.map(
      value,
      place,
      {
        size: (value, at) => {
          volume.sizeBytes = this.size(value, at);
          if (volume.sizeBytes > 0) this.expect(value, at, volumeSizeMistake(volume.sizeBytes));
        },
        durability: (value, at) => {
          volume.durability = this.word(value, at, durabilities);
        },
        reads: (value, at) => {
          volume.reads = this.word(value, at, readPolicies);
        },
        history: (value, at) => {
          policy.historyMs = this.span(value, at, 0);
        },
        residency: (value, at) => {
          policy.residency = this.word<ResidencyPolicy>(value, at, residencies);
        },
        "cold-after": (value, at) => {
          policy.coldAfterMs = this.span(value, at, 1);
        },
        "bucket-away": (value, at) => {
          const word = this.word(value, at, ["stop", "drop-history"] as const);
          policy.bucketAway = word === "stop" ? word : "drop history";
        },
        replicas: (value, at) => {
          volume.replicas = this.whole(value, at, 1, limits.replicasMax);
        },
        tags: (value, at) => {
          volume.tags = this.tags(value, at, limits.orderTagsMax);
        },
        "log-replicas": (value, at) => {
          volume.logReplicas = this.whole(value, at, 1, 3);
          if (volume.logReplicas === 2) this.add(value, at, "is neither 1 nor 3");
        },
        snapshots: (value, at) => {
          volume.schedules = this.schedules(value, at);
        },
      },
      lines,
    );
    if (!("size" in lines)) this.add({ line }, place, "has no size: write size: 10G");
    return { ...volume, name, line, lines, policy, sizeBytes: volume.sizeBytes ?? 0 };
  }

  private schedules(value: Tree, at: string): readonly SnapshotSchedule[] {
    const schedules: SnapshotSchedule[] = [];
    this.each(value, at, limits.schedulesMax, ({ key: name, line, value }) => {
      const before = this.mistakes.length;
      let everyMs = 0;
      let keep = 0;
      const lines: Record<string, number> = {};
      const reads: Record<string, Read> = {
        every: (value, at) => {
          everyMs = this.span(value, at, 1);
        },
        keep: (value, at) => {
          keep = this.whole(value, at, 1, limits.scheduleKeepMax);
        },
      };
      this.map(value, `${at}.${name}`, reads, lines);
      for (const key of Object.keys(reads)) {
        if (!(key in lines))
          this.add({ line }, `${at}.${name}`, `has no ${key}: write { every: 1d, keep: 7 }`);
      }
      const schedule = { name, everyMs, keep };
      if (this.mistakes.length === before) {
        for (const mistake of scheduleMistakes(schedule)) this.add({ line }, at, mistake);
      }
      schedules.push(schedule);
    });
    return schedules;
  }

  /** Calls the reader of each key that stands there; one that is not known is a mistake, and so is anything but a map. */
  private map(
    tree: Tree,
    at: string,
    readers: Readonly<Record<string, Read>>,
    lines: Record<string, number> = {},
  ): void {
    if (tree.kind === "value" && tree.value === null) return;
    if (tree.kind !== "map") {
      this.add(tree, at, `is not a map of ${Object.keys(readers).join(", ")}`);
      return;
    }
    for (const { key, line, value } of tree.entries) {
      const read = Object.hasOwn(readers, key) ? readers[key] : undefined;
      const place = at === "" ? key : `${at}.${key}`;
      lines[key] = line;
      if (read !== undefined) {
        read(value, place);
        continue;
      }
      const guess = nearest(key, Object.keys(readers));
      const known = guess === null ? `keys: ${Object.keys(readers).join(", ")}` : `did you mean ${guess}?`;
      this.add({ line }, place, `is not known; ${known}`);
    }
  }

  /** A map whose keys are names. */
  private each(tree: Tree, at: string, most: number, read: (entry: Named) => void): void {
    if (tree.kind === "value" && tree.value === null) return;
    if (tree.kind !== "map") {
      this.add(tree, at, "is not a map of names");
      return;
    }
    if (tree.entries.length > most) this.add(tree, at, `has ${tree.entries.length} names, at most ${most}`);
    for (const entry of tree.entries.slice(0, most)) read(entry);
  }

  private text(value: Tree, at: string): string {
    if (value.kind === "value" && value.value !== null) return value.text;
    this.add(value, at, "is not a single word");
    return "";
  }

  private word<Word extends string>(value: Tree, at: string, words: readonly Word[]): Word {
    const text = this.text(value, at);
    const found = words.find((word) => word === text);
    if (found === undefined && text !== "")
      this.add(value, at, `${shown(text)} is neither ${words.join(" nor ")}`);
    return found ?? (words[0] as Word);
  }

  private whole(value: Tree, at: string, from: number, to: number): number {
    const number = value.kind === "value" ? value.value : null;
    if (Number.isInteger(number) && (number as number) >= from && (number as number) <= to)
      return number as number;
    this.add(value, at, `is not a number from ${from} to ${to}`);
    return from;
  }

  private size(value: Tree, at: string, also = ""): number {
    const text = this.text(value, at);
    const bytes = parseByteSize(text);
    if (bytes !== null && bytes > 0) return bytes;
    if (text !== "") this.add(value, at, `${shown(text)} is not a size; write 512M, 10G${also}`);
    return 0;
  }

  private span(value: Tree, at: string, least: number): number {
    const text = this.text(value, at);
    const span = parseTimeSpan(text);
    if (span !== null && span >= least && span <= spanMsMax) return span;
    if (text !== "") this.add(value, at, `${shown(text)} is not a span of time; write 90s, 12h, 7d, 2w`);
    return least;
  }

  private tags(value: Tree, at: string, most: number): readonly string[] {
    if (value.kind !== "list") {
      this.add(value, at, "is not a list; write [ssd, fast]");
      return [];
    }
    const tags = value.items.map((item) => this.text(item, at));
    for (const mistake of tagsMistakes(tags, most)) this.add(value, at, mistake);
    return tags;
  }

  private expect(where: { readonly line: number }, at: string, mistake: string | null): void {
    if (mistake !== null) this.add(where, at, mistake);
  }

  private add({ line }: { readonly line: number }, at: string, text: string): void {
    this.mistakes.push({ line, text: at === "" ? `the file ${text}` : `${at}: ${text}` });
  }
}

type Named = { readonly key: string; readonly line: number; readonly value: Tree };
type Writable<T> = { -readonly [K in keyof T]: T[K] };

function shown(text: string): string {
  return JSON.stringify(text.length <= 40 ? text : `${text.slice(0, 37)}...`);
}
