/*
 * Reads a command line against the command table: which command, its arguments, its flags (with the environment standing
 * in for those not given). All mistakes are reported together, each with the nearest name that exists. main.ts calls it.
 * Why not a library: docs/adr/006-effect-at-the-edge.md.
 */
import { VarveError } from "#shared/domain/errors.ts";
import type { Command, Flag } from "./command.ts";
import { nearest } from "./nearest.ts";

export interface CommandLine {
  readonly command: Command;
  readonly args: readonly string[];
  /** Values by flag name; a switch that was given has one empty value. */
  readonly values: ReadonlyMap<string, readonly string[]>;
  /** Where a value came from, for messages: `--data` or `VARVE_DATA`. */
  readonly sources: ReadonlyMap<string, string>;
}

export type Parsed =
  | { readonly kind: "run"; readonly line: CommandLine }
  | { readonly kind: "help"; readonly path: readonly string[] };

export type Environment = Readonly<Record<string, string | undefined>>;

export class UsageError extends VarveError {
  readonly mistakes: readonly string[];
  constructor(mistakes: readonly string[], hint: string) {
    super("UsageError", "Invalid", mistakes.join("\n"), { hint, fields: { mistakes: mistakes.length } });
    this.mistakes = mistakes;
  }
}

export function parseCommandLine(
  words: readonly string[],
  commands: readonly Command[],
  env: Environment,
): Parsed {
  if (words.length === 0) return { kind: "help", path: [] };
  if (words[0] === "--version" || words[0] === "-V") {
    return parseCommandLine(["version", ...words.slice(1)], commands, env);
  }
  if (words[0] === "help") return { kind: "help", path: words.slice(1) };
  const wantsHelp = words.some((word) => word === "--help" || word === "-h");
  const command = commands.find((one) => one.path.every((part, index) => words[index] === part));
  if (command === undefined) {
    if (wantsHelp) return { kind: "help", path: words.filter((word) => !word.startsWith("-")) };
    throw unknownCommand(words, commands);
  }
  if (wantsHelp) return { kind: "help", path: command.path };
  return { kind: "run", line: new Reader(command, env).read(words.slice(command.path.length)) };
}

export function unknownCommand(words: readonly string[], commands: readonly Command[]): UsageError {
  const plain = words.filter((word) => !word.startsWith("-"));
  const group = commands.filter((one) => one.path.length === 2 && one.path[0] === plain[0]);
  if (words[0]?.startsWith("-") === true) {
    return new UsageError(
      [`${words[0]} stands before the command`],
      "Write the command first: varve up --data DIR. See: varve help.",
    );
  }
  if (group.length > 0) {
    const actions = group.map((one) => one.path[1] ?? "");
    const given = plain[1];
    const guess = given === undefined ? null : nearest(given, actions);
    const what =
      given === undefined
        ? `varve ${plain[0]} needs an action`
        : `varve ${plain[0]} has no action "${given}"${guess === null ? "" : `; did you mean "${guess}"?`}`;
    return new UsageError([what], `Actions: ${actions.join(", ")}. See: varve help ${plain[0]}.`);
  }
  const known = [...new Set([...commands.map((one) => one.path[0] ?? ""), "help"])];
  const guess = nearest(plain[0] ?? "", known);
  return new UsageError(
    [`there is no command "${plain[0]}"${guess === null ? "" : `; did you mean "${guess}"?`}`],
    `Commands: ${known.join(", ")}. See: varve help.`,
  );
}

/** Reads the words behind a command's own name. */
class Reader {
  private readonly command: Command;
  private readonly env: Environment;
  private readonly flags: ReadonlyMap<string, Flag>;
  private readonly args: string[] = [];
  private readonly values = new Map<string, string[]>();
  private readonly sources = new Map<string, string>();
  private readonly mistakes: string[] = [];

  constructor(command: Command, env: Environment) {
    this.command = command;
    this.env = env;
    this.flags = new Map(command.flags.map((flag) => [flag.name, flag]));
  }

  read(words: readonly string[]): CommandLine {
    let index = 0;
    let onlyArgs = false;
    while (index < words.length) {
      const word = words[index] ?? "";
      index += 1;
      if (word === "--" && !onlyArgs) onlyArgs = true;
      else if (onlyArgs || !word.startsWith("-") || word === "-") this.args.push(word);
      else index += this.readFlag(word, words[index]);
    }
    this.readEnvironment();
    this.checkArguments();
    if (this.mistakes.length > 0) {
      throw new UsageError(this.mistakes, `See: varve help ${this.command.path.join(" ")}.`);
    }
    return { command: this.command, args: this.args, values: this.values, sources: this.sources };
  }

  /** Returns how many of the following words belong to the flag. */
  private readFlag(word: string, next: string | undefined): number {
    const [given, inline] = split(word);
    const flag = word.startsWith("--")
      ? this.flags.get(given)
      : this.command.flags.find(({ short }) => short !== undefined && word === `-${short}`);
    if (flag === undefined) {
      this.unknownFlag(word.startsWith("--") ? `--${given}` : word);
      // What follows an unknown flag is probably its value, not an argument too many.
      return inline === undefined && next !== undefined && !next.startsWith("-") ? 1 : 0;
    }
    if (flag.value === undefined) {
      if (inline !== undefined) this.mistakes.push(`--${flag.name} takes no value, but got "${inline}"`);
      this.set(flag, "");
      return 0;
    }
    const value = inline ?? next;
    if (value === undefined || (inline === undefined && value.startsWith("--"))) {
      this.mistakes.push(`--${flag.name} needs a value: --${flag.name} ${flag.value}`);
      return 0;
    }
    if (value === "") this.mistakes.push(`--${flag.name} has an empty value: --${flag.name} ${flag.value}`);
    this.set(flag, value);
    return inline === undefined ? 1 : 0;
  }

  private set(flag: Flag, value: string): void {
    const before = this.values.get(flag.name);
    if (before !== undefined && flag.repeat !== true) {
      this.mistakes.push(`--${flag.name} is given more than once`);
      return;
    }
    this.values.set(flag.name, [...(before ?? []), value]);
    this.sources.set(flag.name, `--${flag.name}`);
  }

  private unknownFlag(word: string): void {
    const name = `varve ${this.command.path.join(" ")}`;
    const guess = nearest(word.replace(/^-+/, ""), this.flags.keys());
    this.mistakes.push(`${name} has no flag ${word}${guess === null ? "" : `; did you mean --${guess}?`}`);
  }

  private readEnvironment(): void {
    for (const flag of this.flags.values()) {
      const text = flag.env === undefined ? undefined : this.env[flag.env];
      if (flag.env === undefined || text === undefined || text === "" || this.values.has(flag.name)) continue;
      this.values.set(
        flag.name,
        flag.repeat === true ? text.split(/\s+/).filter((word) => word !== "") : [text],
      );
      this.sources.set(flag.name, flag.env);
    }
  }

  private checkArguments(): void {
    const wanted = this.command.args;
    for (const missing of wanted.slice(this.args.length)) {
      this.mistakes.push(`${missing.name} is missing: ${missing.summary}`);
    }
    for (const extra of this.args.slice(wanted.length)) {
      this.mistakes.push(`"${extra}" is one argument too many`);
    }
  }
}

function split(word: string): [string, string | undefined] {
  const bare = word.replace(/^--/, "");
  const equals = bare.indexOf("=");
  return equals === -1 ? [bare, undefined] : [bare.slice(0, equals), bare.slice(equals + 1)];
}
