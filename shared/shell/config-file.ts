/*
 * `--config FILE` of the cluster's processes: a JSON object whose names are the command's flags. What is given on the command line
 * or by the environment counts for more. Mistakes are collected, to be reported together with those of the values
 * (cluster-config.ts). Called by services/cli/commands/{gateway,storage,api}.ts.
 */
import { readFileSync } from "node:fs";
import type { ConfigSource } from "./config.ts";

export interface KnownSetting {
  readonly name: string;
  /** Absent for a switch, which a file can't set. */
  readonly value?: string;
  readonly repeat?: boolean;
}

export interface FiledConfig extends ConfigSource {
  readonly mistakes: readonly string[];
}

const fileBytesMax = 1024 * 1024;

/** The source with the file's values where nothing else gave one. Without `--config` it is as it was. */
export function withConfigFile(source: ConfigSource, known: readonly KnownSetting[]): FiledConfig {
  const path = source.values.get("config")?.[0];
  if (path === undefined) return { ...source, mistakes: [] };
  const from = source.sources.get("config") ?? "--config";
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    const code = (cause as { code?: unknown }).code;
    return { ...source, mistakes: [`${from}: ${path} can't be read (${String(code)})`] };
  }
  if (text.length > fileBytesMax) return { ...source, mistakes: [`${path} is larger than 1 MiB`] };
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (cause) {
    return { ...source, mistakes: [`${path} is not JSON: ${(cause as Error).message}`] };
  }
  if (typeof document !== "object" || document === null || Array.isArray(document)) {
    return { ...source, mistakes: [`${path} is not a JSON object; for example {"name": "gate-1"}`] };
  }
  return merged(source, known, path, document as Readonly<Record<string, unknown>>);
}

function merged(
  source: ConfigSource,
  known: readonly KnownSetting[],
  path: string,
  document: Readonly<Record<string, unknown>>,
): FiledConfig {
  const values = new Map(source.values);
  const sources = new Map(source.sources);
  const mistakes: string[] = [];
  const settings = known.filter((one) => one.name !== "config" && one.value !== undefined);
  for (const [name, value] of Object.entries(document)) {
    const setting = settings.find((one) => one.name === name);
    const texts = textsOf(value);
    if (setting === undefined) {
      const names = settings.map((one) => one.name).join(", ");
      mistakes.push(`${path}: there is no setting "${name}"; known: ${names}`);
    } else if (texts === null) {
      mistakes.push(`${path}: ${name} is neither text, a number nor a list of them`);
    } else if (texts.length > 1 && setting.repeat !== true) {
      mistakes.push(`${path}: ${name} takes one value, not ${texts.length}`);
    } else if (!values.has(name)) {
      values.set(name, texts);
      sources.set(name, `${path}: ${name}`);
    }
  }
  return { values, sources, mistakes };
}

function textsOf(value: unknown): string[] | null {
  const list: readonly unknown[] = Array.isArray(value) ? value : [value];
  if (list.length === 0) return null;
  const texts = list.flatMap((one) =>
    (typeof one === "string" && one !== "") || typeof one === "number" ? [String(one)] : [],
  );
  return texts.length === list.length ? texts : null;
}
