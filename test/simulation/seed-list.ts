/*
 * Seeds that once failed: test/simulation/seeds.txt, one number a line, `#` for comments. They run first, always, in the
 * simulator's command and in its test. simulate.ts adds to them.
 */
import { appendFileSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const path = fileURLToPath(new URL("seeds.txt", import.meta.url));

export function keptSeeds(): readonly number[] {
  return readFileSync(path, "utf8")
    .split("\n")
    .map((line) => line.replace(/#.*/, "").trim())
    .filter((line) => line !== "")
    .map(Number);
}

export function addFailingSeed(seed: number): void {
  if (!keptSeeds().includes(seed)) appendFileSync(path, `${seed}\n`);
}
