// What the nemesis does to the past of a cluster while it is written to: the bucket killed, paused, cut off, slow; archivers killed, also in the
// middle of their work, paused past their lease, cut off. No client may notice. Called by nemesis-run.ts beside nemesis-faults.ts.
import type { SeededRandom } from "../tools/seeded-random.ts";
import { between, type Fault } from "./nemesis-faults.ts";
import { gateNames, type NemesisLab, nodeNames } from "./nemesis-lab.ts";
import { servers, whileCut } from "./nemesis-partitions.ts";
import { archiverSteps, type KeeperName, keeperNames } from "./nemesis-past.ts";

const someHolder = async (lab: NemesisLab, random: SeededRandom): Promise<KeeperName> =>
  lab.past.holder(random.pick(lab.volumeNames));

const otherKeeper = (keeper: KeeperName): KeeperName =>
  keeperNames.find((name) => name !== keeper) ?? keeperNames[0];

const bucketFaults: readonly Fault[] = [
  {
    name: "bucket killed",
    client: "stays",
    run: async (lab, random) => {
      await lab.past.bucket.kill();
      await between(random, 500, 4000);
      await lab.past.bucket.restart();
    },
  },
  {
    name: "bucket paused",
    client: "stays",
    run: async (lab, random) => {
      lab.past.bucket.signal("SIGSTOP");
      await between(random, 1000, 5000);
      lab.past.bucket.signal("SIGCONT");
    },
  },
  {
    name: "bucket cut off",
    client: "stays",
    run: async (lab, random) => {
      const users = [...keeperNames, ...nodeNames, ...gateNames, "front"];
      const cut = async (): Promise<void> => {
        for (const user of users) await lab.network.part(user, "bucket");
      };
      await whileCut(lab, random, cut, 2000, 8000);
    },
  },
  {
    name: "bucket slow",
    client: "stays",
    run: async (lab, random) => whileCut(lab, random, async () => lab.network.slow("bucket"), 3000, 6000),
  },
];

const archiverFaults: readonly Fault[] = [
  {
    name: "archiver killed",
    client: "stays",
    run: async (lab, random) => {
      const keeper = await someHolder(lab, random);
      await lab.past.keeper(keeper).kill();
      await between(random, 200, 5000);
      await lab.startKeeper(keeper);
    },
  },
  {
    // It has all volumes, and dies at one of the steps of its work; then both start anew.
    name: "archiver killed at a step",
    client: "stays",
    run: async (lab, random) => {
      const keeper = await someHolder(lab, random);
      for (const name of keeperNames) await lab.past.keeper(name).stop();
      await lab.startKeeper(keeper, random.pick(archiverSteps));
      const late = between(random, 8000, 8001);
      await Promise.race([lab.past.keeper(keeper).exited, late]);
      await lab.past.keeper(keeper).kill();
      for (const name of keeperNames) await lab.startKeeper(name);
    },
  },
  {
    // The next one takes over and goes on; the first one is in the middle of its work when it wakes up.
    name: "archiver paused past its lease",
    client: "stays",
    run: async (lab, random) => {
      const keeper = lab.past.keeper(await someHolder(lab, random));
      keeper.signal("SIGSTOP");
      await between(random, 3500, 7000);
      keeper.signal("SIGCONT");
      await between(random, 500, 1500);
    },
  },
  {
    name: "archiver cut from NATS",
    client: "stays",
    run: async (lab, random) => {
      const keeper = await someHolder(lab, random);
      const cut = async (): Promise<void> => {
        for (const server of servers) await lab.network.part(keeper, server);
      };
      await whileCut(lab, random, cut, 2000, 7000);
    },
  },
  {
    // Told nothing by the servers, it goes on storing what it knows of; the next one is told that its lease ran out.
    name: "archiver not heard by NATS",
    client: "stays",
    run: async (lab, random) => {
      const keeper = await someHolder(lab, random);
      const cut = async (): Promise<void> => {
        for (const server of servers) await lab.network.drop(keeper, server);
      };
      await whileCut(lab, random, cut, 3500, 7000);
    },
  },
  {
    name: "both archivers restarted",
    client: "stays",
    run: async (lab, random) => {
      const first = await someHolder(lab, random);
      for (const name of [first, otherKeeper(first)]) {
        await lab.past.keeper(name).stop();
        await lab.startKeeper(name);
      }
    },
  },
];

export const archiveFaults: readonly Fault[] = [...bucketFaults, ...archiverFaults];
