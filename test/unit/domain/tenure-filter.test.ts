// The rule by which every reader of a shared log skips the same batches: stale writers' are skipped, what no writers could
// have made is told, and the verdicts depend on the order in the log alone.
import { describe, expect, test } from "vitest";
import {
  type FilteredBatch,
  type FilterPosition,
  type FilterVerdict,
  isMismatch,
  TenureFilter,
} from "#shared/domain/tenure-filter.ts";
import { SeededRandom } from "../../simulation/scheduler.ts";

const line = "0f1e2d3c4b5a6978";
const begin: FilterPosition = { line, epoch: 0, lastLsn: 0, checksum: 0n };
let nextChecksum = 1n;

/** `count` entries behind `after`, as a writer of that epoch would make them. */
function batchBehind(after: FilteredBatch | FilterPosition, epoch: number, count = 1): FilteredBatch {
  const lastLsn = "lastLsn" in after ? after.lastLsn : after.firstLsn + after.entries.length - 1;
  const entry =
    epoch === after.epoch
      ? ({ kind: "trim", offset: 0, length: 1 } as const)
      : ({ kind: "epoch", writer: "test" } as const);
  nextChecksum += 1n;
  return {
    line,
    epoch,
    firstLsn: lastLsn + 1,
    previousChecksum: after.checksum,
    checksum: nextChecksum,
    entries: Array.from({ length: count }, () => entry),
  };
}

function verdicts(filter: TenureFilter, batches: readonly FilteredBatch[]): string[] {
  return batches.map((batch) => {
    const verdict: FilterVerdict = filter.judge(batch);
    return isMismatch(verdict) ? verdict.what : verdict;
  });
}

describe("tenure filter", () => {
  const first = batchBehind(begin, 1);
  const second = batchBehind(first, 1, 5);
  const third = batchBehind(second, 1);
  const takeover = batchBehind(second, 2);
  const after = batchBehind(takeover, 2, 3);

  test("batches that follow each other are next", () => {
    const filter = new TenureFilter(begin);
    expect(verdicts(filter, [first, second, takeover, after])).toEqual(["next", "next", "next", "next"]);
    expect(filter.position).toEqual({ line, epoch: 2, lastLsn: 10, checksum: after.checksum });
  });

  test("a fenced writer's batches behind the new epoch are stale, however many, and the chain passes over them", () => {
    const staleAgain = batchBehind(third, 1, 9);
    expect(verdicts(new TenureFilter(begin), [first, second, takeover, third, staleAgain, after])).toEqual([
      "next",
      "next",
      "next",
      "stale",
      "stale",
      "next",
    ]);
  });

  test("an old writer's batch before the new epoch entry counts; then the new one must follow it", () => {
    const filter = new TenureFilter(begin);
    expect(verdicts(filter, [first, second, third, takeover])).toEqual(["next", "next", "next", "fork"]);
    expect(verdicts(filter, [batchBehind(third, 2)])).toEqual(["next"]);
  });

  test("from a checkpoint that knows LSN and checksum, not the epoch", () => {
    const from = { line, epoch: null, lastLsn: 6, checksum: second.checksum };
    expect(verdicts(new TenureFilter(from), [first, second, takeover, third, after])).toEqual([
      "known",
      "known",
      "next",
      "stale",
      "next",
    ]);
    expect(verdicts(new TenureFilter(from), [takeover, after])).toEqual(["next", "next"]);
  });

  test("an older writer's batch at the position's own LSN is passed until the position's batch is met", () => {
    const position = { line, epoch: null, lastLsn: 7, checksum: takeover.checksum };
    expect(verdicts(new TenureFilter(position), [third, takeover, third, after])).toEqual([
      "known",
      "known",
      "stale",
      "next",
    ]);
  });

  test("what no writers could have made is told, and nothing is taken", () => {
    const cases: readonly (readonly [string, FilteredBatch])[] = [
      ["line", { ...takeover, line: "ffffffffffffffff" }],
      ["gap", { ...takeover, firstLsn: 8 }],
      ["chain", { ...takeover, previousChecksum: 4711n }],
      ["tenure", { ...takeover, entries: [{ kind: "mark", name: "x" }] }],
      ["overlap", { ...takeover, firstLsn: 6, entries: [...takeover.entries, ...takeover.entries] }],
      ["fork", { ...takeover, firstLsn: 6, epoch: 1 }],
    ];
    for (const [what, batch] of cases) {
      const filter = new TenureFilter({ line, epoch: 1, lastLsn: 6, checksum: second.checksum });
      expect(verdicts(filter, [batch])).toEqual([what]);
      expect(verdicts(filter, [takeover])).toEqual(["next"]);
    }
  });

  test("without a position the first batch is believed", () => {
    expect(verdicts(new TenureFilter(null), [second, takeover, third, after])).toEqual([
      "next",
      "next",
      "stale",
      "next",
    ]);
  });

  test("any mix of writers: two readers that start at different places agree on what counts", () => {
    for (let seed = 0; seed < 300; seed += 1) {
      const random = new SeededRandom(seed);
      const log: FilteredBatch[] = [];
      const counting: FilteredBatch[] = [];
      let last: FilteredBatch | FilterPosition = begin;
      const stale: FilteredBatch[] = [];
      for (let step = 0; step < 40; step += 1) {
        const chance = random.next();
        const fenced = stale.at(-1);
        if (chance < 0.2 && fenced !== undefined) {
          const late = batchBehind(fenced, fenced.epoch, 1 + Math.floor(random.next() * 4));
          stale.push(late);
          log.push(late);
          continue;
        }
        const epoch: number = (last.epoch ?? 0) + (chance > 0.8 || last === begin ? 1 : 0);
        if (epoch !== last.epoch && last !== begin) stale.push(last as FilteredBatch);
        const next = batchBehind(last, epoch, 1 + Math.floor(random.next() * 4));
        log.push(next);
        counting.push(next);
        last = next;
      }
      const whole = new TenureFilter(begin);
      expect(log.filter((batch) => whole.judge(batch) === "next")).toEqual(counting);
      const from = counting[Math.floor(random.next() * counting.length)] as FilteredBatch;
      const lastLsn = from.firstLsn + from.entries.length - 1;
      const late = new TenureFilter({ line, epoch: null, lastLsn, checksum: from.checksum });
      const rest = log.slice(log.indexOf(from)).filter((batch) => late.judge(batch) === "next");
      expect(rest).toEqual(counting.slice(counting.indexOf(from) + 1));
    }
  });
});
