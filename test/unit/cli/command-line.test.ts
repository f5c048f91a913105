// The command line against the command table: what is understood, and that each mistake is named with the nearest name.
// No process is started; test/e2e/bad-input.test.ts asserts the same words on the real command.
// Every command of the table is also checked for being reachable and documented.
import { describe, expect, test } from "vitest";
import { parseCommandLine, UsageError } from "../../../services/cli/command-line.ts";
import { commands } from "../../../services/cli/command-table.ts";
import { helpText } from "../../../services/cli/help.ts";
import { editDistance, nearest } from "../../../services/cli/nearest.ts";

const parse = (text: string, env: Record<string, string> = {}) =>
  parseCommandLine(
    text.split(" ").filter((word) => word !== ""),
    commands,
    env,
  );
const line = (text: string, env: Record<string, string> = {}) => {
  const parsed = parse(text, env);
  if (parsed.kind !== "run") throw new Error("not a command");
  return parsed.line;
};
const mistakes = (text: string): readonly string[] => {
  try {
    parse(text);
  } catch (error) {
    if (error instanceof UsageError) return error.mistakes;
    throw error;
  }
  return [];
};

describe("a command line", () => {
  test("gives command, arguments and flags, in either spelling", () => {
    const read = line("volume create disk0 --size=10G --durability flush --json");
    expect(read.command.path).toEqual(["volume", "create"]);
    expect(read.args).toEqual(["disk0"]);
    expect(read.values.get("size")).toEqual(["10G"]);
    expect(read.values.get("durability")).toEqual(["flush"]);
    expect(read.values.has("json")).toBe(true);
  });

  test("repeats what may be repeated and refuses to repeat the rest", () => {
    expect(line("up --data d --nbd a:1 --nbd b:2").values.get("nbd")).toEqual(["a:1", "b:2"]);
    expect(mistakes("up --data d --data e")).toEqual(["--data is given more than once"]);
  });

  test("takes what follows -- as arguments", () => {
    expect(line("volume show -- --odd").args).toEqual(["--odd"]);
  });

  test("lets the environment stand in for flags that are not given", () => {
    const env = { VARVE_DATA: "/d", VARVE_NBD: "a:1  unix:/x", VARVE_HTTP: "" };
    const read = line("up --volume v:1G", env);
    expect(read.values.get("data")).toEqual(["/d"]);
    expect(read.values.get("nbd")).toEqual(["a:1", "unix:/x"]);
    expect(read.values.has("http")).toBe(false);
    expect(read.sources.get("data")).toBe("VARVE_DATA");
    expect(line("up --data /e", env).values.get("data")).toEqual(["/e"]);
  });

  test.each([
    ["vulome list", 'there is no command "vulome"; did you mean "volume"?'],
    ["xyzzy", 'there is no command "xyzzy"'],
    ["volume", "varve volume needs an action"],
    ["volume lst", 'varve volume has no action "lst"; did you mean "list"?'],
    ["--data x up", "--data stands before the command"],
    ["up --dta x", "varve up has no flag --dta; did you mean --data?"],
    ["up --vol x:1", "varve up has no flag --vol; did you mean --volume?"],
    ["up -d x", "varve up has no flag -d"],
    ["up --data", "--data needs a value: --data DIR"],
    ["up --data --http off", "--data needs a value: --data DIR"],
    ["up --data=", "--data has an empty value: --data DIR"],
    ["volume list --json=yes", '--json takes no value, but got "yes"'],
    ["volume show", "NAME is missing: the volume"],
    ["volume show a b", '"b" is one argument too many'],
  ])("%s: %s", (text, mistake) => {
    expect(mistakes(text)).toContain(mistake);
  });

  test("reports all mistakes at once", () => {
    expect(mistakes("volume create --sze 1G --json=1 a b")).toEqual([
      "varve volume create has no flag --sze; did you mean --size?",
      '--json takes no value, but got "1"',
      '"b" is one argument too many',
    ]);
  });
});

describe("help", () => {
  test("is asked for in every way", () => {
    for (const text of ["", "help", "--help", "-h"]) expect(parse(text)).toEqual({ kind: "help", path: [] });
    expect(parse("help up")).toEqual({ kind: "help", path: ["up"] });
    expect(parse("up --data x --help")).toEqual({ kind: "help", path: ["up"] });
    expect(parse("volume create -h")).toEqual({ kind: "help", path: ["volume", "create"] });
  });

  test("names every command, and every flag of it with its environment variable", () => {
    const overview = helpText([], commands);
    for (const command of commands) {
      expect(overview).toContain(`varve ${command.path.join(" ")}`);
      const own = helpText(command.path, commands);
      for (const flag of command.flags) {
        expect(own).toContain(`--${flag.name}`);
        if (flag.env !== undefined) expect(own).toContain(`[${flag.env}]`);
      }
    }
    expect(helpText(["volume"], commands)).toContain("varve volume resize NAME");
  });

  test("refuses what it does not know", () => {
    expect(() => helpText(["vlume"], commands)).toThrow('did you mean "volume"');
  });

  test("every command has a module behind it", async () => {
    for (const command of commands)
      expect(typeof (await command.load()), command.path.join(" ")).toBe("function");
  });
});

describe("the nearest name", () => {
  test("counts edits, a swap as one", () => {
    expect(editDistance("", "abc")).toBe(3);
    expect(editDistance("data", "dtaa")).toBe(1);
    expect(editDistance("kitten", "sitting")).toBe(3);
  });

  test("is found where it is near, and is nothing where it is not", () => {
    const names = ["data", "nbd", "http", "volume", "json"];
    expect(nearest("vloume", names)).toBe("volume");
    expect(nearest("htp", names)).toBe("http");
    expect(nearest("vol", names)).toBe("volume");
    expect(nearest("q", names)).toBeNull();
    expect(nearest("elephant", names)).toBeNull();
    expect(nearest("x", [])).toBeNull();
  });
});
