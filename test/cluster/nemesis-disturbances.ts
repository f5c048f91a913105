// What is away while the nemesis tiers, rolls back or clones a volume: a storage node, the log's leader, the bucket, an archiver, the api. The
// clients' connections outlive each of them by itself. Called by nemesis-run.ts with a step of nemesis-steps.ts.
import type { SeededRandom } from "../tools/seeded-random.ts";
import { archiveFaults } from "./nemesis-archive-faults.ts";
import { between, type Fault, processFaults } from "./nemesis-faults.ts";
import type { NemesisLab } from "./nemesis-lab.ts";
import { partitionFaults } from "./nemesis-partitions.ts";

export type Disturbance = Pick<Fault, "name" | "run">;

const own: readonly Disturbance[] = [
  { name: "nothing away", run: async () => undefined },
  {
    name: "log leader killed",
    run: async (lab, random) => {
      const leader = (await lab.logLeader()) ?? random.pick(lab.servers.nodes);
      await leader.kill();
      await between(random, 200, 2500);
      await leader.start();
    },
  },
  {
    name: "both storage nodes killed",
    run: async (lab, random) => {
      await lab.node("shelf-1").kill();
      await lab.node("shelf-2").kill();
      await between(random, 100, 1000);
      await lab.startNode("shelf-1");
      await lab.startNode("shelf-2");
    },
  },
  {
    // Whoever asked it for something asks the next one.
    name: "api killed",
    run: async (lab: NemesisLab, random: SeededRandom) => {
      await between(random, 0, 1500);
      await lab.past.api.kill();
      await between(random, 100, 1000);
      await lab.past.api.start();
    },
  },
];

const shared: readonly string[] = [
  "storage node killed",
  "storage node paused",
  "storage node cut from NATS",
  "bucket killed",
  "bucket paused",
  "bucket cut off",
  "archiver killed",
  "archiver paused past its lease",
];

export const disturbances: readonly Disturbance[] = [
  ...own,
  ...[...processFaults, ...partitionFaults, ...archiveFaults].filter(({ name }) => shared.includes(name)),
];
