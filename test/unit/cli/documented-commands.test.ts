// Every `varve …` line that the recipes and the README show is a command that Varve understands, with flags that exist.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { parseCommandLine } from "../../../services/cli/command-line.ts";
import { commands } from "../../../services/cli/command-table.ts";
import { repositoryDir } from "../../tools/varve-process.ts";

const recipes = readdirSync(join(repositoryDir, "docs/recipes")).map((name) => `docs/recipes/${name}`);

/** Words of each command in blocks of shell; what is continued by a backslash is one line. */
function commandsOf(page: string): string[][] {
  const text = readFileSync(join(repositoryDir, page), "utf8").replaceAll(/\\\n\s*/g, "");
  const lines = [...text.matchAll(/^```sh\n([^]*?)^```/gm)].flatMap((match) =>
    (match[1] ?? "").split(/\n|; /),
  );
  return lines
    .map((line) => line.replace(/\s#.*$/, "").replace(/^docker compose .*?exec \S+ /, ""))
    .flatMap((line) => {
      const words = /^(?:npx )?varve (.+)$/.exec(line.trim())?.[1];
      return words === undefined ? [] : [words.trim().split(/\s+/)];
    });
}

describe.each(["README.md", "docs/runbook.md", ...recipes])("%s", (page) => {
  test("shows commands that exist", () => {
    const shown = commandsOf(page);
    expect(shown.length).toBeGreaterThan(0);
    for (const words of shown) {
      expect(() => parseCommandLine(words, commands, {}), words.join(" ")).not.toThrow();
    }
  });
});
