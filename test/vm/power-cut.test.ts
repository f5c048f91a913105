// Bounded power cuts: three rounds that differ in what the disk loses and when, and two negative controls in which the same
// checker must find losses: a volume that answers before its sync, and a disk that ignores flushes. More: npm run test:power-cut -- --rounds N.
import { afterEach, describe, expect, test } from "vitest";
import { PowerCutRig, type RoundPlan } from "./power-cut-rig.ts";

let rig: PowerCutRig | undefined;
afterEach(async () => {
  await rig?.close();
  rig = undefined;
});

const plan = (changes: Partial<RoundPlan>): RoundPlan => ({
  mode: "scatter",
  loadMs: 3000,
  atWorstMoment: true,
  cutStartingAfterMs: undefined,
  lieAfterMs: undefined,
  ...changes,
});

describe("power cut of the machine that Varve runs in", () => {
  test("everything acknowledged is there, and a lying disk is found out", { timeout: 420_000 }, async () => {
    rig = await PowerCutRig.open(20_261_121);
    const rounds = [
      plan({}),
      plan({ atWorstMoment: false }),
      // Nothing is kept by chance, so the control must lose; then a second cut, while Varve starts on what the first one left.
      plan({ mode: "drop", cutStartingAfterMs: 2000 }),
    ];
    let sectorsLost = 0;
    let controlLosses = 0;
    for (const round of rounds) {
      const report = await rig.round(round);
      expect(report.failures).toEqual([]);
      expect(report.acknowledged).toBeGreaterThan(50);
      sectorsLost += report.cuts.reduce((sum, cut) => sum + cut.sectorsLost, 0);
      controlLosses += report.controlLosses;
    }
    // The cuts did bite, a volume that answers before its sync was caught, and what kept the data was flushes.
    expect(sectorsLost).toBeGreaterThan(0);
    expect(controlLosses).toBeGreaterThan(0);
    expect(rig.disk.counts.flushes + rig.disk.counts.fuaWrites).toBeGreaterThan(50);

    // A disk that lies: all that Varve acknowledges in the second half is lost, and must be missed.
    const control = await rig.round(plan({ mode: "drop", loadMs: 4000, lieAfterMs: 1500 }));
    expect(control.failures.length).toBeGreaterThan(0);
    expect(control.failures.join("\n")).toMatch(/^durable: (lost|stale) at /m);
  });
});
