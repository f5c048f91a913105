// Writes while the log can't be reached: they wait up to the limit, then all get the error, those that come are refused, and with the
// log back everything goes on. On the real server: test/cluster/nats-away.test.ts.
import { expect, test } from "vitest";
import { VarveError } from "#shared/domain/errors.ts";
import { RemoteAdmission } from "../../../services/gateway/engine/remote-feed.ts";
import { WritePatience } from "../../../services/gateway/engine/write-patience.ts";
import { SteppedClock } from "../file-store/stepped-clock.ts";

const away = new VarveError("JetStreamAway", "Retry", "no server answers");

test("a stall shorter than the limit is never seen; a longer one fails what waits, once", async () => {
  const clock = new SteppedClock(1);
  const patience = new WritePatience(clock, 30_000);
  const answered: string[] = [];
  const answer = (error: VarveError): number => answered.push(`${error._tag} ${error.kind}`);
  patience.stalled(away, answer);
  patience.stalled(null, answer);
  await clock.run(5);
  expect([answered, patience.refusal]).toEqual([[], null]);
  patience.stalled(away, answer);
  patience.stalled(away, answer);
  await clock.run(40);
  expect(answered).toEqual(["LogUnreachable Retry"]);
  patience.stalled(away, answer);
  await clock.run(5);
  expect(answered).toHaveLength(1);
  expect(patience.refusal).toMatchObject({
    message: "the log could not be reached for 30 s: no server answers",
  });
  patience.stalled(null, answer);
  expect(patience.refusal).toBeNull();
});

test("while it lasts nothing is admitted, not even what takes no room", async () => {
  const clock = new SteppedClock(1);
  const patience = new WritePatience(clock, 1000);
  const admission = new RemoteAdmission(
    () => 2 ** 30,
    () => patience.refusal,
  );
  patience.stalled(new VarveError("NoSpace", "Full", "the servers have no space"), () => undefined);
  expect(admission.refuse(0)).toBeNull();
  await clock.run(1);
  expect([admission.refuse(0)?.kind, admission.refuse(4096)?.kind]).toEqual(["Full", "Full"]);
});
