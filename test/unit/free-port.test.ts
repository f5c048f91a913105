// Ports for test servers: nobody gets one that another process was given, listening or not, until that process ends.
import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { portClaims } from "../tools/free-port.ts";

const run = promisify(execFile);
const tool = fileURLToPath(new URL("../tools/free-port.ts", import.meta.url));

/** Asks twice at once, as tests side by side do, and ends only when told by its standard input. */
const asks = `
  const { freePorts } = await import(${JSON.stringify(tool)});
  const ports = (await Promise.all([freePorts(300), freePorts(300)])).flat();
  process.stdout.write(ports.join(" ") + "\\n");
  process.stdin.resume();
  process.stdin.on("end", () => process.exit(0));
`;

test("six hundred ports each for three processes at once are all different, and free when those have ended", async () => {
  const all = [1, 2, 3].map(() => run(process.execPath, ["--input-type=module", "-e", asks]));
  const given: string[] = [];
  await Promise.all(
    all.map(async ({ child }) => {
      let text = "";
      child.stdout?.on("data", (part: string) => {
        text += part;
      });
      while (!text.endsWith("\n")) {
        await new Promise((resolve) => {
          setTimeout(resolve, 20);
        });
      }
      given.push(...text.trim().split(" "));
    }),
  );
  for (const { child } of all) child.stdin?.end();
  await Promise.all(all);
  expect(given.length).toBe(1_800);
  expect(new Set(given).size).toBe(1_800);
  const ended = new Set(all.map(({ child }) => String(child.pid)));
  const left = readdirSync(portClaims).filter((port) => ended.has(ownerOf(port)));
  expect(left).toEqual([]);
});

function ownerOf(port: string): string {
  try {
    return readFileSync(join(portClaims, port), "utf8");
  } catch {
    return "nobody";
  }
}
