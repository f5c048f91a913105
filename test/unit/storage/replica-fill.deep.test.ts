// A replica that is copied from others, killed or crashed anywhere (fill-world.ts); what goes wrong step by step is in replica-fill.test.ts.
import { expect, test } from "vitest";
import { checkpointPathOf, fillPathOf } from "#shared/domain/data-layout.ts";
import { contentOf, expectSame, fillOf, makeOld, paths, world } from "./fill-world.ts";

test("killed or crashed anywhere: the old image stays until the copy is whole, and the next attempt ends well", async () => {
  const found = { old: 0, none: 0, filled: 0 };
  for (let seed = 0; seed < 60; seed += 1) {
    const made = await world(seed, ["a", "b"]);
    const { clock, disk } = made;
    const first = disk.store();
    const old = await makeOld(made, first);
    void fillOf(made, first)
      .run()
      .catch(() => undefined);
    await clock.run(clock.random.integer(1, 90));
    if (seed % 2 === 0) disk.kill();
    else disk.crash();
    clock.reset();
    const store = disk.store();
    const bytes = await clock.until(store.readWhole(checkpointPathOf(paths.image)));
    const wanted = (await clock.until(store.facts(fillPathOf(paths.image)))) !== null;
    if (bytes !== null) {
      const image = await clock.until(made.attach(store));
      if (image.state().appliedLsn === old.lsn) {
        found.old += 1;
        expect((await contentOf(image, clock)).equals(old.bytes)).toBe(true);
      } else {
        found.filled += 1;
        expect(wanted).toBe(false);
        await expectSame(made, image);
      }
      await clock.until(image.abandon());
    } else found.none += 1;
    // Begun again, from the start.
    await clock.until(fillOf(made, store).run());
    await expectSame(made, await clock.until(made.attach(store)));
  }
  expect(Math.min(...Object.values(found))).toBeGreaterThan(0);
});
