// Bounded crash rounds for `npm test`; the long run is `npm run test:crash -- --rounds 100`.

import { rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { CrashRun } from "./crash-run.ts";

describe("kill -9 of the real process", () => {
  for (const dropUnsynced of [false, true]) {
    const what = dropUnsynced ? "with unsynced writes lost too" : "with the page cache alive";
    it(`loses nothing that was promised, ${what}`, { timeout: 180_000 }, async () => {
      const dir = await mkdtemp(join(tmpdir(), "varve-crash-"));
      const run = new CrashRun({ dir, seed: 20_261_121, dropUnsynced });
      try {
        await run.open();
        let acknowledged = 0;
        for (let round = 0; round < 5; round += 1) {
          const report = await run.round(round);
          expect(report.failures).toEqual([]);
          acknowledged += report.acknowledged;
        }
        expect(acknowledged).toBeGreaterThan(100);
        // The proof that the layer under the files works: unflushed writes of the flush volume did go.
        if (dropUnsynced) expect(run.unpromisedLosses).toBeGreaterThan(0);
        else expect(run.unpromisedLosses).toBe(0);
        expect(await run.close()).toEqual([]);
      } finally {
        run.abandon();
        rmSync(dir, { recursive: true, force: true });
      }
    });
  }
});
