// Jobs as others see them: progress asked for while they run, the first end counts, running ones are never forgotten.
import { beforeEach, describe, expect, test } from "vitest";
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { barText, lineText } from "../../../services/cli/job-progress.ts";
import { JobRegister } from "../../../services/gateway/engine/job-register.ts";

let nowMs = 0;
let ids = 0;
let jobs: JobRegister;

beforeEach(() => {
  nowMs = 1000;
  ids = 0;
  jobs = new JobRegister(
    { wallTimeMs: () => nowMs, monotonicMs: () => nowMs, after: () => ({ cancel() {} }), soon() {} },
    { hex: () => `job${(ids += 1)}`, next: () => 0 },
  );
});

describe("jobs", () => {
  test("progress is asked for when somebody looks, and stays as it was at the end", () => {
    const job = jobs.start("fill", "disk0");
    let doneBytes = 10;
    job.follow(() => ({ doneBytes, totalBytes: 100, note: "filling" }));
    expect(jobs.show(job.id)).toMatchObject({
      state: "running",
      doneBytes: 10,
      totalBytes: 100,
      endedAtMs: null,
    });
    doneBytes = 100;
    nowMs = 2000;
    job.done("every extent is local");
    doneBytes = 7;
    expect(jobs.show(job.id)).toMatchObject({
      state: "done",
      doneBytes: 100,
      note: "every extent is local",
      startedAtMs: 1000,
      endedAtMs: 2000,
    });
  });

  test("the first end counts", () => {
    const job = jobs.start("rollback", "disk0");
    job.failed(new VarveError("BucketAwayError", "Retry", "the bucket is away"));
    job.done();
    job.stopped("closed");
    expect(jobs.show(job.id)).toMatchObject({
      state: "failed",
      note: "the bucket is away",
      failure: { _tag: "BucketAwayError" },
    });
  });

  test("the oldest ended ones are forgotten, running ones never", () => {
    const running = jobs.start("fill", "disk0");
    for (let count = 0; count < limits.jobsMax + 10; count += 1) jobs.start("tier", "disk0").done();
    expect(jobs.list()).toHaveLength(limits.jobsMax);
    expect(jobs.show(running.id).state).toBe("running");
    expect(() => jobs.show("job2")).toThrow('there is no job "job2"');
    expect(jobs.list()[0]?.id).toBe(`job${limits.jobsMax + 11}`);
  });

  test("a bar and a line say how far it is", () => {
    const job = { kind: "fill", volume: "disk0", doneBytes: 2 ** 30, totalBytes: 2 ** 31, note: "filling" };
    expect(barText(job)).toBe(`[${"#".repeat(15)}${".".repeat(15)}]  50%  1 GiB of 2 GiB  filling`);
    expect(lineText(job)).toBe("fill disk0: 50%, 1 GiB of 2 GiB, filling");
    expect(barText({ doneBytes: 0, totalBytes: 0, note: "" })).toBe(`[${".".repeat(30)}]   0%  0 B of 0 B`);
  });
});
