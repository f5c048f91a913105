// `volume fill` and `volume tier` of a cluster over a memory bus: every node is asked until it is done, whatever it answers meanwhile, and the
// job says what came of it.
import { expect, test } from "vitest";
import { MemoryMessageBus } from "#shared/adapters/message-bus/memory.ts";
import { replicaCopySubject } from "#shared/domain/cluster-subjects.ts";
import { type HistoryRecord, newHistoryRecord } from "#shared/domain/history-record.ts";
import { limits } from "#shared/domain/limits.ts";
import type { ReplicaReport } from "#shared/domain/replica-report.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import {
  decodeMessage,
  encodeMessage,
  isBadMessage,
  type ReplicaMessage,
} from "#shared/formats/replica-message.ts";
import { ClusterTiering } from "../../../services/api/engine/cluster-tiering.ts";
import { JobRegister } from "../../../services/gateway/engine/job-register.ts";
import { FastClock } from "../../tools/fast-clock.ts";
import { SteppedRandom } from "../file-store/stepped-clock.ts";

const id = "5ca1ab1e00c0ffee";
const sizeBytes = 4 * limits.extentBytes;
const record: VolumeRecord = {
  ...({ id, name: "t", sizeBytes, durability: "write", createdAtMs: 0, state: "active" } as const),
};

function setUp(
  answers: Readonly<Record<string, (message: ReplicaMessage) => ReplicaMessage | Buffer | null>>,
) {
  const clock = new FastClock();
  const random = new SteppedRandom(3);
  const bus = new MemoryMessageBus();
  const history: HistoryRecord = { ...newHistoryRecord(id, sizeBytes), residency: "tiered", coldAfterMs: 77 };
  const state = { history, missing: new Map<string, number>(), asked: [] as ReplicaMessage[] };
  for (const [node, answer] of Object.entries(answers)) {
    bus.serve(replicaCopySubject(id, node), async (data) => {
      const decoded = decodeMessage(data);
      if (isBadMessage(decoded)) return null;
      state.asked.push(decoded.message);
      const found = answer(decoded.message);
      return found === null || Buffer.isBuffer(found) ? found : encodeMessage(found);
    });
  }
  const jobs = new JobRegister(clock, random);
  const report = (node: string): ReplicaReport => ({
    ...({
      node,
      host: node,
      condition: "following",
      reason: "",
      appliedLsn: 1,
      checkpointLsn: 1,
      epoch: 1,
    } as const),
    sizeBytes,
    allocatedBytes: 0,
    roomBytes: 0,
    ...(state.missing.has(node) ? { remoteExtents: state.missing.get(node) ?? 0 } : {}),
  });
  const tiering = new ClusterTiering({
    require: () => record,
    replicasOf: () => Object.keys(answers).map((node) => ({ node, report: report(node) })),
    past: { historyOf: () => state.history },
    bus,
    clock,
    random,
    jobs,
  });
  return { tiering, jobs, state };
}

const refused = { type: "refused", kind: "Retry", tag: "NoHeldBase", message: "none yet", epoch: 0 } as const;

test("tier asks each node under one name until it is done, and adds up what went", async () => {
  let looks = 0;
  const { tiering, jobs, state } = setUp({
    shelf: () => ({ type: "evicted", extents: 3, isDone: true }),
    // An answer that is none is asked for again.
    attic: () => {
      looks += 1;
      return looks === 1 ? Buffer.from("garbage") : { type: "evicted", extents: 1, isDone: looks > 2 };
    },
  });
  const job = tiering.tier("t", null);
  await expect.poll(() => jobs.show(job.id).state).toBe("done");
  expect(jobs.show(job.id)).toMatchObject({
    doneBytes: 4 * limits.extentBytes,
    note: expect.stringContaining("shelf 3, attic 1"),
  });
  expect(new Set(state.asked.map((one) => JSON.stringify(one))).size).toBe(1);
  expect(state.asked[0]).toMatchObject({ type: "evict", coldAfterMs: 77 });
  tiering.close();
});

test("tier ends with what a node says, and is refused for a volume that stays whole", async () => {
  const { tiering, jobs, state } = setUp({ shelf: () => refused });
  const job = tiering.tier("t", 0);
  await expect
    .poll(() => jobs.show(job.id).failure)
    .toMatchObject({ _tag: "NoHeldBase", message: "shelf: none yet" });
  state.history = { ...state.history, residency: "full" };
  expect(() => tiering.tier("t", 0)).toThrow("has residency full");
  tiering.close();
});

test("fill asks those that miss something, again after they forgot it, until all is there", async () => {
  let looks = 0;
  const { tiering, jobs, state } = setUp({
    shelf: () => {
      looks += 1;
      if (looks > 1) state.missing.clear();
      return null;
    },
    attic: () => refused,
  });
  state.missing.set("shelf", 2);
  const job = tiering.fill("t");
  expect(job).toMatchObject({ kind: "fill", volume: "t", state: "running" });
  await expect.poll(() => jobs.show(job.id).state, { timeout: 3000 }).toBe("done");
  expect(state.asked.map(({ type }) => type)).toEqual(["fill", "fill"]);
  tiering.close();
});
