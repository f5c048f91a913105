/*
 * Seeds that once failed: test/simulation/seeds.txt, one a line, `97` of the one-machine world, `past 97` of the one with a bucket,
 * `cluster 97` of the one with several machines; `#` for comments. They run first, always, in the simulator's command and in its test. simulate.ts adds to them.
 */
import { appendFileSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const path = fileURLToPath(new URL("seeds.txt", import.meta.url));

export const worldNames = ["machine", "past", "cluster"] as const;
export type WorldName = (typeof worldNames)[number];

export interface KeptSeed {
  readonly world: WorldName;
  readonly seed: number;
}

export function keptSeeds(): readonly KeptSeed[] {
  return readFileSync(path, "utf8")
    .split("\n")
    .map((line) => line.replace(/#.*/, "").trim())
    .filter((line) => line !== "")
    .map((line) => {
      const [first = "", second] = line.split(" ");
      const world = worldNames.find((name) => name === first) ?? "machine";
      return { world, seed: Number(second ?? first) };
    });
}

export function addFailingSeed({ world, seed }: KeptSeed): void {
  if (keptSeeds().some((kept) => kept.world === world && kept.seed === seed)) return;
  appendFileSync(path, world === "machine" ? `${seed}\n` : `${world} ${seed}\n`);
}
