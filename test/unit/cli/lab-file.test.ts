// A lab file from its text: the page's own example, and that every mistake is told at once, with its line and what to write.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { VarveError } from "#shared/domain/errors.ts";
import { readLab } from "../../../services/cli/apply/lab-reader.ts";
import { stoppedAt } from "../../../services/cli/apply/lab-steps.ts";
import { repositoryDir } from "../../tools/varve-process.ts";

const page = readFileSync(join(repositoryDir, "docs/specs/apply.md"), "utf8");
const labExample = /^```yaml\n([^]*?)^```/m.exec(page)?.[1] ?? "";
const mistakesOf = (text: string): readonly string[] =>
  readLab(text).mistakes.map((one) => `${one.line}: ${one.text}`);

test("a step that failed says what it did not change, and what the steps before it did", () => {
  const cause = new VarveError("ReplicaCountError", "Invalid", "too many", { hint: "Nothing was changed." });
  const hintAt = (done: number): string => (stoppedAt("volume a: create", done, 4, cause) as VarveError).hint;
  expect(hintAt(1)).toBe(
    "1 of 4 steps are done and stay; the same command goes on. Of this step: Nothing was changed.",
  );
  expect(hintAt(0)).toContain("None of 4 steps is done");
  expect(stoppedAt("volume a: create", 1, 4, cause)).toMatchObject({
    _tag: "ReplicaCountError",
    kind: "Invalid",
    message: "volume a: create: too many",
  });
});

describe("a lab file", () => {
  test("is read as the page says", () => {
    const { file, mistakes } = readLab(labExample);
    expect(mistakes).toEqual([]);
    expect(file).toMatchObject({
      lab: "home",
      nodes: [
        {
          name: "shelf",
          line: 3,
          drained: false,
          pools: [{ name: "main", line: 6, quotaBytes: 500 * 2 ** 30, tags: ["ssd"] }],
        },
        { name: "attic", pools: [{ name: "main", quotaBytes: 0, tags: ["ssd", "slow"] }] },
      ],
      volumes: [
        {
          name: "disk0",
          sizeBytes: 64 * 2 ** 20,
          replicas: 2,
          tags: ["ssd"],
          reads: "strict",
          logReplicas: 1,
          policy: {},
          schedules: [
            { name: "hourly", everyMs: 3_600_000, keep: 24 },
            { name: "daily", everyMs: 86_400_000, keep: 7 },
          ],
        },
        { name: "scratch", sizeBytes: 32 * 2 ** 20, policy: {} },
      ],
    });
    expect(file.volumes[1]).not.toHaveProperty("replicas");
  });

  test("takes every key, sizes as numbers, and a policy", () => {
    const text = `volumes:
  a:
    size: 1048576
    durability: flush
    history: 2w
    residency: tiered
    cold-after: 12h
    bucket-away: drop-history
    snapshots: {}
  b.c_d: { size: 1T, history: 0s, tags: [] }
`;
    const { file, mistakes } = readLab(text);
    expect(mistakes).toEqual([]);
    expect(file).toMatchObject({ lab: "lab", nodes: [] });
    expect(file.volumes).toMatchObject([
      {
        sizeBytes: 2 ** 20,
        durability: "flush",
        policy: {
          historyMs: 14 * 86_400_000,
          residency: "tiered",
          coldAfterMs: 12 * 3_600_000,
          bucketAway: "drop history",
        },
        schedules: [],
      },
      { name: "b.c_d", sizeBytes: 2 ** 40, policy: { historyMs: 0 }, tags: [] },
    ]);
    expect(readLab("").mistakes).toEqual([]);
  });

  test("tells all its mistakes, each with its line", () => {
    const text = `lab: Home
node: {}
nodes:
  Shelf:
    drained: yes
    pools:
      main: { quota: lots, tags: ssd }
volumes:
  disk0:
    sise: 10G
  disk1: 10G
  disk2:
    size: 1000
    durability: maybe
    replicas: 4
    tags: [Fast, Fast]
    log-replicas: 2
    history: soon
    snapshots:
      daily: { every: 90s, keep: 0 }
      weekly: { every: 1w }
`;
    expect(mistakesOf(text)).toEqual([
      `1: lab: must be made of a-z, 0-9 and '-', and start with a letter or digit (lower case)`,
      "2: node: is not known; did you mean nodes?",
      "4: nodes.Shelf: must be made of a-z, 0-9 and '-', and start with a letter or digit (lower case)",
      "5: nodes.Shelf.drained: is neither true nor false",
      '7: nodes.Shelf.pools.main.quota: "lots" is not a size; write 512M, 10G, or none',
      "7: nodes.Shelf.pools.main.tags: is not a list; write [ssd, fast]",
      "9: volumes.disk0: has no size: write size: 10G",
      "10: volumes.disk0.sise: is not known; did you mean size?",
      "11: volumes.disk1: is not a map of size, durability, reads, history, residency, cold-after, bucket-away, replicas, tags, log-replicas, snapshots",
      "11: volumes.disk1: has no size: write size: 10G",
      "13: volumes.disk2.size: is not a multiple of 512 bytes",
      '14: volumes.disk2.durability: "maybe" is neither write nor flush',
      "15: volumes.disk2.replicas: is not a number from 1 to 3",
      `16: volumes.disk2.tags: tag "Fast" must be made of a-z, 0-9 and '-', and start with a letter or digit (lower case)`,
      `16: volumes.disk2.tags: tag "Fast" must be made of a-z, 0-9 and '-', and start with a letter or digit (lower case)`,
      "16: volumes.disk2.tags: tag Fast is there twice",
      "17: volumes.disk2.log-replicas: is neither 1 nor 3",
      '18: volumes.disk2.history: "soon" is not a span of time; write 90s, 12h, 7d, 2w',
      "20: volumes.disk2.snapshots.daily.keep: is not a number from 1 to 1000",
      "21: volumes.disk2.snapshots.weekly: has no keep: write { every: 1d, keep: 7 }",
    ]);
    expect(mistakesOf("volumes: { a: { size: 1M, snapshots: { daily: { every: 90s, keep: 1 } } } }")).toEqual(
      ["1: volumes.a.snapshots: schedule daily: every is not a span of whole minutes from 1m to 366d"],
    );
  });

  test.each([
    ["a: [\n", "2: "],
    ["volumes:\n  a: {size: 1M}\n  a: {size: 2M}\n", "3: Map keys must be unique"],
    ["volumes: &x\n  a: {size: 1M}\nnodes: *x\n", "3: aliases are not read: write it out"],
    ["lab: !!secret x\n", "1: Unresolved tag: tag:yaml.org,2002:secret"],
    ["lab: a\n---\nlab: b\n", "2: Source contains multiple documents"],
    ["- a\n", "1: the file is not a map of lab, nodes, volumes"],
    ["just words\n", "1: the file is not a map of lab, nodes, volumes"],
    ["? [a, b]\n: c\n", "1: a key that is no single word"],
    [`lab: ${"[".repeat(40)}${"]".repeat(40)}\n`, "1: this lies too deep"],
  ])("that is no lab file is refused: %j", (text, first) => {
    expect(mistakesOf(text)[0]).toMatch(new RegExp(`^${first.replaceAll(/[.[\]()?]/g, "\\$&")}`));
  });
});
