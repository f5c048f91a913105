// What the nemesis does with the past of a volume that is written to: cold extents leave its nodes and come back, it goes back to a point
// (refused while a client is attached, then without one, or by force), or a clone of it is made, looked at, and deleted later. Each goes on
// while something is away (nemesis-disturbances.ts). Called by nemesis-run.ts. What is judged: docs/specs/cluster.md#under-faults.
import type { ByteRange } from "../tools/block-checker.ts";
import { sleep } from "../tools/cluster-process.ts";
import type { SeededRandom } from "../tools/seeded-random.ts";
import { type ApiVolume, errorIn } from "./nemesis-api.ts";
import type { KnownPoint, NemesisClient, RoundOfClient } from "./nemesis-client.ts";
import { otherGate } from "./nemesis-faults.ts";
import type { NemesisLab } from "./nemesis-lab.ts";
import type { NemesisPoints } from "./nemesis-points.ts";

export interface StepGround {
  readonly lab: NemesisLab;
  readonly client: NemesisClient;
  readonly points: NemesisPoints;
  readonly random: SeededRandom;
  /** Lets the disturbance begin; resolves when it is over. Once. */
  readonly disturb: () => Promise<void>;
}

export interface PastStep {
  readonly name: string;
  /** Where its volume is written to meanwhile; everywhere without. */
  writes?(random: SeededRandom): ByteRange;
  /** The load is under way. */
  run(ground: StepGround): Promise<RoundOfClient>;
}

interface ApiStartedChange {
  readonly volume: ApiVolume;
}

const extentBytes = 4 * 1024 * 1024;
const baseMs = 10_000;

const oneExtent = (random: SeededRandom): ByteRange => {
  const from = random.between(0, 4) * extentBytes;
  return { from, to: from + extentBytes };
};

const tieringSteps: readonly PastStep[] = [
  {
    // One extent is written to: the others are cold behind the next base.
    name: "tiered",
    writes: oneExtent,
    run: async ({ lab, client, points, disturb }) => {
      await coldBehindBase(lab, client.volume.name);
      const over = disturb();
      const left = async (): Promise<void> => {
        await letGo({ lab, client, points });
        await over;
      };
      return await client.stayed(left());
    },
  },
  {
    name: "filled",
    run: async ({ lab, client, disturb, random }) => {
      const { api } = lab.past;
      const { name } = client.volume;
      const over = disturb();
      const filled = async (): Promise<void> => {
        if (random.chance(0.5)) await api.done("PATCH", `volumes/${name}`, { residency: "full" });
        await api.job(`volumes/${name}/fill`);
        await over;
      };
      return await client.stayed(filled());
    },
  },
];

const rollbackSteps: readonly PastStep[] = [
  {
    name: "rolled back",
    run: async ({ lab, client, points, random, disturb }) => {
      const point = await pickPoint({ points, random, client });
      await sleep(random.between(200, 1000));
      const failures = [...(await client.rest()), ...(await refusal(lab, client, point))];
      await client.leave();
      const over = disturb();
      const round = await client.wentBack(goBack({ lab, client, points }, point, false), point);
      await over;
      return { ...round, failures: [...failures, ...round.failures] };
    },
  },
  {
    // To before most of it was written again: what the bucket's base has of the cold extents is not what the point has.
    name: "rolled back while it is cold",
    run: async ({ lab, client, points, random, disturb }) => {
      const point = await points.take(client);
      await sleep(random.between(500, 1000));
      const failures = [...(await client.rest())];
      client.begin(oneExtent(random));
      await coldBehindBase(lab, client.volume.name);
      failures.push(...(await client.rest()));
      await letGo({ lab, client, points });
      await client.leave();
      const over = disturb();
      const round = await client.wentBack(goBack({ lab, client, points }, point, false), point);
      await over;
      return { ...round, failures: [...failures, ...round.failures] };
    },
  },
  {
    name: "rolled back by force",
    run: async ({ lab, client, points, random, disturb }) => {
      const point = await pickPoint({ points, random, client });
      await sleep(random.between(200, 1000));
      const failures = await refusal(lab, client, point);
      const over = disturb();
      const round = await client.wentBack(goBack({ lab, client, points }, point, true), point);
      await over;
      return { ...round, failures: [...failures, ...round.failures] };
    },
  },
];

const cloneSteps: readonly PastStep[] = [
  {
    name: "cloned",
    run: async ({ lab, client, points, random, disturb }) => {
      const point = await pickPoint({ points, random, client });
      const over = disturb();
      const findings: string[] = [];
      const looked = async (): Promise<void> => {
        findings.push(...(await cloned({ lab, client, points, point })));
        await over;
      };
      const round = await client.stayed(looked());
      return { ...round, failures: [...round.failures, ...findings] };
    },
  },
];

export const pastSteps: readonly PastStep[] = [...tieringSteps, ...rollbackSteps, ...cloneSteps];

async function letGo({ lab, client, points }: Pick<StepGround, "lab" | "client" | "points">): Promise<void> {
  const { note } = await lab.past.api.job(`volumes/${client.volume.name}/tier`, { coldAfter: "0s" });
  points.noteLeft(note);
}

/** Mostly the one that is taken now; else one of those that are known, also one that a rollback went back behind. */
async function pickPoint({
  points,
  random,
  client,
}: Pick<StepGround, "points" | "random" | "client">): Promise<KnownPoint> {
  const fresh = await points.take(client);
  const known = points.of(client.volume.name);
  return random.chance(0.6) ? fresh : random.pick(known);
}

/** A client is attached, so nothing is rolled back without force. */
async function refusal(
  lab: NemesisLab,
  client: NemesisClient,
  { name }: KnownPoint,
): Promise<readonly string[]> {
  const answer = await lab.past.api.insist("POST", `volumes/${client.volume.name}/rollback`, { point: name });
  const tag = errorIn(answer)?.tag ?? "done";
  return tag === "VolumeAttachedError" ? [] : [`a rollback under an attached client, without force: ${tag}`];
}

async function goBack(
  { lab, client, points }: Pick<StepGround, "lab" | "client" | "points">,
  point: KnownPoint,
  force: boolean,
): Promise<void> {
  const path = `volumes/${client.volume.name}/rollback`;
  const { volume } = await lab.past.api.done<ApiStartedChange>("POST", path, { point: point.name, force });
  points.noteBack(volume.past?.residency === "tiered");
}

/** The point as an export, and as a disk of its own, which is written to and changes nothing of the first. */
async function cloned({
  lab,
  client,
  points,
  point,
}: Pick<StepGround, "lab" | "client" | "points"> & { readonly point: KnownPoint }): Promise<
  readonly string[]
> {
  const { volume, gate } = client;
  const seen = await lab.attach(otherGate(gate), `${volume.name}@${point.name}`);
  const findings = (await client.judgeCopy(seen.client, point)).map((one) => `at ${point.name}: ${one}`);
  await seen.client.disconnect();
  const name = await points.clone(volume.name, point.name);
  const { client: copy } = await lab.attach(otherGate(gate), name);
  findings.push(...(await client.judgeCopy(copy, point)).map((one) => `clone at ${point.name}: ${one}`));
  const marks = Buffer.alloc(64 * 1024, 0xc1);
  for (let at = 0; at < volume.sizeBytes; at += extentBytes) await copy.write(at, marks);
  for (let at = 0; at < volume.sizeBytes; at += extentBytes) {
    if (!(await copy.read(at, marks.length)).equals(marks))
      findings.push(`clone: not what was written at ${at}`);
  }
  await copy.disconnect();
  return findings;
}

/** What is not written to from now on may leave: the bucket holds a base behind it, mostly. */
async function coldBehindBase(lab: NemesisLab, volume: string): Promise<void> {
  await lab.past.api.done("PATCH", `volumes/${volume}`, { residency: "tiered" });
  const lsn = (await lab.logEnd(volume))?.lastLsn ?? 0;
  const endMs = performance.now() + baseMs;
  while (performance.now() < endMs) {
    const record = await lab.past.record(volume);
    if ((record?.heldBase?.s ?? 0) >= lsn) return;
    await sleep(200);
  }
}
