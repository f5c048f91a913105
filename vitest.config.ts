// The test projects. `npm run check` runs the fast four (unit, contract, golden, tidy). `npm test` (scripts/test.ts) adds the
// deep ones (*.deep.test.ts: thousands of orders, crashes, histories) and then the rest, most of them a file at a time, because
// they start servers and disks and measure time. A skipped or focused test is an error of the lint and of
// tidy.test.ts.
import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

type Stage = { readonly name: string; readonly include: readonly string[]; readonly timeoutMs: number };

const sharedProcess = new Set(["unit", "deep", "contract", "golden"]);
const deepTests = "test/**/*.deep.test.ts";

/** Projects whose tests share nothing and may run side by side. */
const fast: readonly Stage[] = [
  { name: "unit", include: ["test/unit/**/*.test.ts", "test/tools/**/*.test.ts"], timeoutMs: 20_000 },
  { name: "deep", include: [deepTests], timeoutMs: 180_000 },
  { name: "contract", include: ["test/contract/**/*.test.ts"], timeoutMs: 30_000 },
  { name: "golden", include: ["test/golden/**/*.test.ts"], timeoutMs: 20_000 },
  { name: "tidy", include: ["test/tidy.test.ts"], timeoutMs: 20_000 },
];

/** An emulated machine fills one CPU, and nothing in these files is timed closely: as many at a time as there are CPUs. */
const virtual: readonly Stage[] = [
  { name: "vm", include: ["test/vm/**/*.test.ts", "test/boot/**/*.test.ts"], timeoutMs: 600_000 },
];

/** Begun first, so that no worker is left with a long one when the other has nothing to do; else the larger files come first. */
const longest = [
  "vm/power-cut",
  "vm/attach",
  "vm/kernel-client",
  "vm/server-restart",
  "unit/archiver/base-races.deep",
  "unit/replica/partial-image-orders.deep",
  "unit/archiver/retention-property.deep",
  "contract/partial-image",
  "contract/write-log",
  "unit/storage/bucket-fill",
];

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const at = longest.findIndex((name) => moduleId.endsWith(`/test/${name}.test.ts`));
      return at === -1 ? longest.length : at;
    };
    return (await super.sort(files)).toSorted((a, b) => rank(a) - rank(b));
  }
}

/** Projects that own the machine while they run: one file at a time. */
const slow: readonly Stage[] = [
  { name: "simulation", include: ["test/simulation/**/*.test.ts"], timeoutMs: 300_000 },
  { name: "s3", include: ["test/s3/**/*.test.ts"], timeoutMs: 120_000 },
  { name: "nats", include: ["test/nats/**/*.test.ts"], timeoutMs: 120_000 },
  { name: "cluster", include: ["test/cluster/**/*.test.ts"], timeoutMs: 120_000 },
  { name: "conformance", include: ["test/conformance/**/*.test.ts"], timeoutMs: 180_000 },
  { name: "crash", include: ["test/crash/**/*.test.ts"], timeoutMs: 300_000 },
  { name: "e2e", include: ["test/e2e/**/*.test.ts"], timeoutMs: 120_000 },
  { name: "package", include: ["test/package/**/*.test.ts"], timeoutMs: 180_000 },
];

const project = (stage: Stage, parallel: boolean) => ({
  test: {
    name: stage.name,
    include: [...stage.include],
    exclude: stage.name === "deep" ? [] : [deepTests],
    environment: "node" as const,
    pool: "forks" as const,
    // A process per file costs more than most files do. These keep nothing behind, and clean up what they made.
    isolate: !sharedProcess.has(stage.name),
    fileParallelism: parallel,
    testTimeout: stage.timeoutMs,
    hookTimeout: stage.timeoutMs,
  },
});

export default defineConfig({
  test: {
    projects: [
      ...[...fast, ...virtual].map((stage) => project(stage, true)),
      ...slow.map((stage) => project(stage, false)),
    ],
    sequence: { sequencer: LongestFirst },
    allowOnly: false,
    // Vitest's own is one less, which on two cores is one.
    maxWorkers: Math.max(2, availableParallelism()),
  },
});
