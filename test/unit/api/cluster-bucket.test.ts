// The bucket of a cluster behind its api: a collection is asked of the archiver again until it is done, under one name; nobody there, a refusal
// and a garbled answer end it with what to do.
import { describe, expect, it } from "vitest";
import { VarveError } from "#shared/domain/errors.ts";
import {
  decodeMessage,
  encodeMessage,
  encodeWith,
  isBadMessage,
  sealMessage,
} from "#shared/formats/replica-message.ts";
import type { MessageBus } from "#shared/ports/message-bus.ts";
import type { JobView } from "#shared/ports/past-administration.ts";
import { ClusterBucket } from "../../../services/api/engine/cluster-bucket.ts";
import { JobRegister } from "../../../services/gateway/engine/job-register.ts";
import { HandClock } from "../archiver/small-bucket.ts";
import { SteppedRandom } from "../file-store/stepped-clock.ts";

class PromptClock extends HandClock {
  override after(delayMs = 0, task: () => void = () => undefined) {
    this.pass(delayMs);
    queueMicrotask(task);
    return { cancel: () => undefined };
  }
}

function done(report: object): Uint8Array {
  const payload = Buffer.from(JSON.stringify(report));
  const { bytes, payloadAt } = encodeWith({ type: "collected", isDone: true }, payload.length);
  payload.copy(bytes, payloadAt);
  sealMessage(bytes);
  return bytes;
}

async function collected(answer: (times: number) => Uint8Array | null) {
  const clock = new PromptClock();
  const random = new SteppedRandom(1);
  const runs: string[] = [];
  const jobs = new JobRegister(clock, random);
  const bucket = new ClusterBucket({
    bus: {
      request: async (_subject: string, data: Uint8Array) => {
        const decoded = decodeMessage(data);
        if (isBadMessage(decoded) || decoded.message.type !== "collect") throw new Error("not asked");
        runs.push(decoded.message.run);
        const found = answer(runs.length);
        if (found === null) throw new VarveError("BusNobody", "Retry", "nobody serves it");
        return found;
      },
    } as unknown as MessageBus,
    clock,
    random,
    jobs,
    deleted: { list: async () => [], undelete: async () => Promise.reject(new Error("unused")) },
    scrubs: { prepare: () => async () => Promise.reject(new Error("unused")) },
    requests: () => ({}),
    usage: async () => Promise.reject(new Error("unused")),
    check: async () => Promise.reject(new Error("unused")),
  });
  const { id } = bucket.collect({ dryRun: false, acceptClock: false });
  expect(() => bucket.collect({ dryRun: false, acceptClock: false })).toThrow("under way");
  let job: JobView = jobs.show(id);
  while (job.state === "running") {
    await new Promise((resolve) => {
      setTimeout(resolve, 1);
    });
    job = jobs.show(id);
  }
  return { job, runs, report: () => bucket.report(id) };
}

const running = encodeMessage({ type: "collected", isDone: false });

describe("a collection of a cluster's bucket", () => {
  it("is asked for under one name until it is done, also while the archiver changes", async () => {
    const { job, runs, report } = await collected((times) => {
      if (times === 3 || times === 4) return null;
      return times < 6 ? running : done({ deleted: 7, waiting: 2, keys: [], findings: [] });
    });
    expect([job.state, job.note]).toEqual(["done", "7 objects deleted, 2 wait"]);
    expect([runs.length, new Set(runs).size]).toEqual([6, 1]);
    await Promise.resolve();
    expect(report()).toMatchObject({ kind: "collect", report: { deleted: 7 } });
  });

  it("fails with what to do where no archiver collects, and with what the archiver refused", async () => {
    const nobody = await collected(() => null);
    expect(nobody.job.failure).toMatchObject({ _tag: "NoCollectorError", kind: "Retry" });
    const refusal = { type: "refused", kind: "Retry", tag: "CollectorBusyError", message: "busy", epoch: 0 };
    const refused = await collected(() => encodeMessage(refusal as Parameters<typeof encodeMessage>[0]));
    expect(refused.job.failure).toMatchObject({ _tag: "CollectorBusyError", kind: "Retry" });
    const garbled = await collected(() => Buffer.alloc(64, 7));
    expect(garbled.job.failure).toMatchObject({ _tag: "CollectAnswerError", kind: "Retry" });
  });
});
