// Plans of lab files: what is missing or differs becomes a step, in order; the state that a plan leads to has no plan; what does not fit
// is told with its line and then nothing is planned; nothing is deleted but what the same lab made, and only when it was asked for.
import { describe, expect, test } from "vitest";
import { defaultHistoryPolicy } from "#shared/domain/history-record.ts";
import type { LabFile, LabVolume } from "#shared/domain/lab-file.ts";
import { type LabState, type LabStep, planLab, type StateVolume } from "#shared/domain/lab-plan.ts";
import { noOrders } from "#shared/domain/volume-orders.ts";
import { SeededRandom } from "../../tools/seeded-random.ts";

const MiB = 2 ** 20;
const daily = { name: "daily", everyMs: 86_400_000, keep: 7 };
const hourly = { name: "hourly", everyMs: 3_600_000, keep: 24 };

const wanted = (name: string, parts: Partial<LabVolume> = {}): LabVolume => ({
  name,
  line: 10,
  lines: { size: 11, replicas: 12, tags: 13, reads: 14, durability: 15, "log-replicas": 16 },
  sizeBytes: 64 * MiB,
  policy: {},
  ...parts,
});
const present = (name: string, parts: Partial<StateVolume> = {}): StateVolume => ({
  name,
  sizeBytes: 64 * MiB,
  durability: "write",
  reads: "available",
  policy: defaultHistoryPolicy,
  orders: noOrders,
  replicas: 1,
  ...parts,
});
const shelf = { name: "shelf", drained: false, pools: [{ name: "main", quotaBytes: null, tags: ["old"] }] };
const attic = { name: "attic", drained: true, pools: [{ name: "main", quotaBytes: 5, tags: [] }] };
const cluster = (...volumes: StateVolume[]): LabState => ({ nodes: [shelf, attic], volumes });
const file = (parts: Partial<LabFile>): LabFile => ({ lab: "home", nodes: [], volumes: [], ...parts });

/** The state after a step, as the server would make it. */
function after(state: LabState, step: LabStep): LabState {
  const { nodes, volumes } = state;
  const node = (name: string, change: (one: typeof shelf) => object): LabState => ({
    volumes,
    nodes: (nodes ?? []).map((one) => (one.name === name ? { ...one, ...change(one as typeof shelf) } : one)),
  });
  const volume = (name: string, change: (one: StateVolume) => Partial<StateVolume>): LabState => ({
    nodes,
    volumes: volumes.map((one) => (one.name === name ? { ...one, ...change(one) } : one)),
  });
  switch (step.kind) {
    case "pools":
      return node(step.node, ({ pools }) => ({
        pools: pools.map((pool) => {
          const order = step.pools.find(({ name }) => name === pool.name);
          const quota = order?.quotaBytes === undefined ? pool.quotaBytes : order.quotaBytes || null;
          return { ...pool, quotaBytes: quota, tags: order?.tags ?? pool.tags };
        }),
      }));
    case "drain":
    case "undrain":
      return node(step.node, () => ({ drained: step.kind === "drain" }));
    case "create": {
      const {
        name,
        sizeBytes,
        durability = "write",
        reads = "available",
        policy,
        replicas = 1,
      } = step.volume;
      const { tags = [], logReplicas = null, schedules = [] } = step.volume;
      const orders = { lab: step.lab, tags, logReplicas, schedules };
      const made = { name, sizeBytes, durability, reads, orders, replicas };
      return { nodes, volumes: [...volumes, { ...made, policy: { ...defaultHistoryPolicy, ...policy } }] };
    }
    case "set": {
      const { policy, orders, ...rest } = step.change;
      return volume(step.name, (one) => ({
        ...rest,
        policy: one.policy === null ? null : { ...one.policy, ...policy },
        orders: { ...one.orders, ...orders },
      }));
    }
    case "resize":
      return volume(step.name, () => ({ sizeBytes: step.sizeBytes }));
    case "replica":
      return volume(step.name, ({ replicas }) => ({ replicas: replicas + 1 }));
    case "delete":
      return { nodes, volumes: volumes.filter(({ name }) => name !== step.name) };
    default:
      return step satisfies never;
  }
}
const kinds = (steps: readonly LabStep[]): readonly string[] => steps.map(({ kind }) => kind);

describe("a plan", () => {
  test("has a step for what is missing or differs, in an order that works, and none when it was done", () => {
    const lab = file({
      nodes: [
        {
          name: "shelf",
          line: 2,
          drained: true,
          pools: [{ name: "main", line: 3, quotaBytes: 0, tags: ["ssd"] }],
        },
        { name: "attic", line: 4, drained: false, pools: [{ name: "main", line: 5, quotaBytes: 0 }] },
      ],
      volumes: [
        wanted("grown", { sizeBytes: 128 * MiB, replicas: 3, reads: "strict", schedules: [daily] }),
        wanted("fresh", { tags: ["ssd"], logReplicas: 3, policy: { historyMs: 1 }, schedules: [hourly] }),
        wanted("same"),
      ],
    });
    const state = cluster(present("grown"), present("same", { orders: { ...noOrders, schedules: [daily] } }));
    const { steps, mistakes } = planLab(lab, state, false);
    expect(mistakes).toEqual([]);
    expect(kinds(steps)).toEqual([
      "pools",
      "pools",
      "undrain",
      "create",
      "set",
      "resize",
      "replica",
      "replica",
      "drain",
    ]);
    expect(steps[4]).toMatchObject({
      change: { reads: "strict", policy: {}, orders: { schedules: [daily] } },
    });
    expect(planLab(lab, steps.reduce(after, state), true)).toEqual({ steps: [], mistakes: [], notes: [] });
  });

  test("does not care for the order of tags and schedules, and leaves what the file does not say", () => {
    const orders = { lab: null, tags: ["b", "a"], logReplicas: 3, schedules: [hourly, daily] };
    const state = cluster(present("disk0", { orders, reads: "strict", replicas: 2 }));
    expect(planLab(file({ volumes: [wanted("disk0")] }), state, true).steps).toEqual([]);
    const said = wanted("disk0", { tags: ["a", "b"], schedules: [daily, hourly] });
    expect(planLab(file({ volumes: [said] }), state, true).steps).toEqual([]);
    const emptied = planLab(file({ volumes: [wanted("disk0", { schedules: [] })] }), state, true);
    expect(emptied.steps).toMatchObject([{ kind: "set", change: { orders: { schedules: [] } } }]);
  });

  test("prunes only what the same lab made, last, and only when asked", () => {
    const made = (name: string, lab: string | null): StateVolume =>
      present(name, { orders: { ...noOrders, lab } });
    const state = cluster(
      made("hand", null),
      made("mine", "home"),
      made("theirs", "garage"),
      made("kept", "home"),
    );
    const lab = file({ volumes: [wanted("kept"), wanted("new")] });
    const asked = planLab(lab, state, true);
    expect(asked).toMatchObject({ steps: [{ kind: "create" }, { kind: "delete", name: "mine" }], notes: [] });
    const unasked = planLab(lab, state, false);
    expect(kinds(unasked.steps)).toEqual(["create"]);
    expect(unasked.notes).toEqual(["mine was made by lab home and is not in the file: --prune deletes it"]);
    // What was made by hand stays, also where the file changed it once and no longer names it.
    expect(kinds(planLab(file({}), cluster(made("hand", null)), true).steps)).toEqual([]);
  });

  test("tells all that does not fit what is there, and then has no steps", () => {
    const lab = file({
      nodes: [
        { name: "shelf", line: 2, pools: [{ name: "fast", line: 3 }] },
        { name: "cellar", line: 4, pools: [] },
      ],
      volumes: [
        wanted("small", {
          sizeBytes: MiB,
          replicas: 1,
          policy: { historyMs: 1 },
          lines: { size: 20, history: 22 },
        }),
        wanted("flushed", { durability: "flush" }),
        wanted("fine"),
      ],
    });
    const plan = planLab(lab, cluster(present("small", { replicas: 2, policy: null })), true);
    expect(plan.steps).toEqual([]);
    expect(plan.mistakes.map(({ line, text }) => `${line} ${text.split(/[ :]/)[0]}`)).toEqual([
      "3 nodes.shelf",
      "4 nodes.cellar",
      "10 volumes.small.replicas",
      "15 volumes.flushed.durability",
      "20 volumes.small.size",
      "22 volumes.small.history",
    ]);
  });

  test("on one machine refuses what only a cluster has", () => {
    const state: LabState = { nodes: null, volumes: [present("disk0", { reads: "strict" })] };
    const lab = file({
      nodes: [{ name: "shelf", line: 1, pools: [] }],
      volumes: [wanted("disk0", { replicas: 2, tags: ["a"], logReplicas: 1, reads: "available" })],
    });
    expect(planLab(lab, state, false).mistakes.map(({ line }) => line)).toEqual([1, 12, 13, 14, 16]);
    const usual = file({
      volumes: [wanted("disk0", { replicas: 1, schedules: [daily], durability: "flush" })],
    });
    expect(kinds(planLab(usual, state, false).steps)).toEqual(["set"]);
  });

  test("of any file leads to a state without a plan", () => {
    const source = new SeededRandom(20_261_128);
    const random = (): number => source.fraction();
    const chance = (): boolean => random() < 0.5;
    const some = <T>(...values: T[]): T | undefined =>
      chance() ? values[Math.floor(random() * values.length)] : undefined;
    const parts = (): Partial<LabVolume> => ({
      sizeBytes: (64 + Math.floor(random() * 4)) * MiB,
      ...defined({
        replicas: some(1, 2, 3),
        reads: some("available", "strict"),
        tags: some([], ["a"], ["a", "b"]),
        logReplicas: some(1, 3),
        schedules: some([], [daily], [hourly, daily]),
      }),
      policy: chance() ? { historyMs: Math.floor(random() * 3) } : {},
    });
    for (let round = 0; round < 500; round += 1) {
      const names = ["a", "b", "c", "d"];
      const lab = file({ volumes: names.filter(chance).map((name) => wanted(name, parts())) });
      const state = cluster(
        ...names
          .filter(chance)
          .map((name) => present(name, { orders: { ...noOrders, lab: some("home", "garage") ?? null } })),
      );
      const prune = chance();
      const { steps, mistakes } = planLab(lab, state, prune);
      expect(mistakes).toEqual([]);
      const end = steps.reduce(after, state);
      expect(planLab(lab, end, prune).steps).toEqual([]);
      const stays = ({ orders }: StateVolume): boolean => !prune || orders.lab !== "home";
      for (const { name } of state.volumes.filter(stays)) {
        expect(end.volumes.map((one) => one.name)).toContain(name);
      }
    }
  });
});

function defined<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as never;
}
