// The checker must be able to fail: each kind of wrong data is made by hand on a plain byte array and must be named.

import { describe, expect, it } from "vitest";
import { BlockLedger } from "../tools/block-ledger.ts";
import type { Finding, Operation, Survives } from "../tools/block-operation.ts";

const unitBytes = 512;
const sizeBytes = 64 * unitBytes;

/** A ledger beside the disk that it describes; the tests spoil the disk. */
class Bench {
  readonly disk = Buffer.alloc(sizeBytes);
  readonly ledger: BlockLedger;

  constructor(survives: Survives, tag = 0x1234n) {
    this.ledger = new BlockLedger({ sizeBytes, unitBytes, tag, survives });
  }

  issue(kind: "write" | "zero" | "trim", offset: number, length: number, fua = false): Operation {
    return this.ledger.issue(kind, offset, length, fua);
  }

  apply(operation: Operation): void {
    if (operation.kind === "write") this.ledger.payload(operation).copy(this.disk, operation.from);
    else this.disk.fill(0, operation.from, operation.to);
  }

  /** Issued, applied and acknowledged. */
  put(kind: "write" | "zero" | "trim", offset: number, length: number, fua = false): Operation {
    const operation = this.issue(kind, offset, length, fua);
    this.apply(operation);
    this.ledger.acknowledge(operation);
    return operation;
  }

  flush(): void {
    this.ledger.flushed(this.ledger.flushIssued());
  }

  restart(): Finding[] {
    const check = this.ledger.restartCheck();
    check.add(0, this.disk);
    return check.finish();
  }

  read(offset: number, length: number): Finding[] {
    const read = this.ledger.readIssued(offset, length);
    return this.ledger.readDone(read, this.disk.subarray(offset, offset + length));
  }

  snapshot(): Buffer {
    return Buffer.from(this.disk);
  }
}

const kinds = (findings: readonly Finding[]): string[] => findings.map((finding) => finding.kind);

describe("block ledger", () => {
  it("accepts a faithful disk, also with unaligned and overlapping operations, over several restarts", () => {
    const bench = new Bench("acknowledged");
    for (let round = 0; round < 4; round += 1) {
      bench.put("write", 0, sizeBytes);
      bench.put("write", 700, 3001);
      bench.put("trim", 1000, 50);
      bench.put("zero", 5 * unitBytes, 2 * unitBytes);
      bench.put("write", 900, 120, true);
      expect(bench.read(0, sizeBytes)).toEqual([]);
      expect(bench.read(777, 2222)).toEqual([]);
      expect(bench.restart()).toEqual([]);
    }
  });

  it("names a lost acknowledged write as lost, and an older version as stale", () => {
    const bench = new Bench("acknowledged");
    bench.put("write", 0, unitBytes);
    bench.disk.fill(0, 0, unitBytes);
    expect(kinds(bench.read(0, unitBytes))).toEqual(["lost"]);
    const again = new Bench("acknowledged");
    again.put("write", 0, unitBytes);
    const before = again.snapshot();
    again.put("write", 0, unitBytes);
    before.copy(again.disk);
    expect(kinds(again.restart())).toEqual(["stale"]);
  });

  it("tells torn, misplaced, foreign and garbage apart", () => {
    const torn = new Bench("acknowledged");
    torn.put("write", 0, unitBytes);
    const first = torn.snapshot();
    torn.put("write", 0, unitBytes);
    first.copy(torn.disk, 256, 256, 512);
    expect(kinds(torn.restart())).toEqual(["torn"]);

    const misplaced = new Bench("acknowledged");
    misplaced.put("write", 0, 4 * unitBytes);
    misplaced.disk.copy(misplaced.disk, 0, unitBytes, 2 * unitBytes);
    expect(kinds(misplaced.restart())).toEqual(["misplaced"]);

    const foreign = new Bench("acknowledged");
    foreign.put("write", 0, unitBytes);
    const other = new Bench("acknowledged", 0x9999n);
    other.put("write", 0, unitBytes);
    other.disk.copy(foreign.disk);
    expect(kinds(foreign.restart())).toEqual(["foreign"]);

    const garbage = new Bench("acknowledged");
    garbage.put("write", 0, unitBytes);
    garbage.disk.fill(0x5a, 0, unitBytes);
    expect(kinds(garbage.restart())).toEqual(["garbage"]);
  });

  it("finds one wrong byte in a part of a unit", () => {
    const bench = new Bench("acknowledged");
    bench.put("write", 100, 1000);
    bench.disk[1050] = (bench.disk[1050] ?? 0) ^ 1;
    expect(bench.restart()).toHaveLength(1);
  });

  it("lets a write in flight at the crash be there or not, but not in part", () => {
    for (const applied of [0, 1, 2]) {
      const bench = new Bench("acknowledged");
      bench.put("write", 0, 2 * unitBytes);
      const before = bench.snapshot();
      bench.apply(bench.issue("write", 0, 2 * unitBytes));
      before.copy(bench.disk, applied * unitBytes, applied * unitBytes, 2 * unitBytes);
      expect(kinds(bench.restart())).toEqual(applied === 1 ? ["not a prefix"] : []);
      expect(bench.restart()).toEqual([]);
    }
  });

  it("with survives: flushed, lets unflushed writes go and holds on to FLUSH and FUA", () => {
    const bench = new Bench("flushed");
    bench.put("write", 0, unitBytes);
    bench.flush();
    const flushed = bench.snapshot();
    bench.put("write", 0, unitBytes);
    flushed.copy(bench.disk);
    expect(bench.restart()).toEqual([]);
    expect(bench.ledger.unpromisedLosses).toBe(1);
    bench.put("write", 0, unitBytes, true);
    flushed.copy(bench.disk);
    expect(kinds(bench.restart())).toEqual(["stale"]);
  });

  it("a FLUSH covers only what was acknowledged before it was sent", () => {
    const bench = new Bench("flushed");
    const early = bench.snapshot();
    const late = bench.issue("write", 0, unitBytes);
    const flush = bench.ledger.flushIssued();
    bench.apply(late);
    bench.ledger.acknowledge(late);
    bench.ledger.flushed(flush);
    early.copy(bench.disk);
    expect(bench.restart()).toEqual([]);
  });

  it("reports a later write that survived an earlier one that did not", () => {
    const bench = new Bench("flushed");
    bench.put("write", 0, unitBytes);
    bench.put("write", unitBytes, unitBytes);
    bench.disk.fill(0, 0, unitBytes);
    expect(kinds(bench.restart())).toEqual(["not a prefix"]);
  });

  it("lets a read beside a write see either, and each byte of either", () => {
    const bench = new Bench("acknowledged");
    bench.put("write", 0, unitBytes);
    const before = bench.snapshot();
    const read = bench.ledger.readIssued(0, unitBytes);
    const write = bench.issue("write", 0, unitBytes);
    bench.apply(write);
    before.copy(bench.disk, 200, 200, 512);
    expect(bench.ledger.readDone(read, bench.disk.subarray(0, unitBytes))).toEqual([]);
    bench.ledger.acknowledge(write);
    expect(kinds(bench.read(0, unitBytes))).toEqual(["torn"]);
  });

  it("forgets what can never be read again", () => {
    const bench = new Bench("acknowledged");
    for (let index = 0; index < 1000; index += 1) bench.put("write", 0, unitBytes);
    expect(bench.ledger.fragmentCount).toBeLessThan(16);
    const reading = bench.ledger.readIssued(0, unitBytes);
    const old = bench.snapshot();
    for (let index = 0; index < 100; index += 1) bench.put("write", 0, unitBytes);
    expect(bench.ledger.readDone(reading, old.subarray(0, unitBytes))).toEqual([]);
  });

  describe("a disk that goes back to a point", () => {
    /** The point, with a write that nobody answered; then more is written, which the rollback undoes. */
    function before(): { bench: Bench; atPoint: Buffer; goBack: (disk: Buffer) => Finding[] } {
      const bench = new Bench("acknowledged");
      bench.put("write", 0, 4 * unitBytes);
      bench.issue("write", 6 * unitBytes, unitBytes);
      const point = bench.ledger.pointTaken(bench.ledger.pointAsked());
      const atPoint = bench.snapshot();
      for (let round = 0; round < 20; round += 1) bench.put("write", unitBytes, 8 * unitBytes);
      bench.put("write", 20 * unitBytes, unitBytes);
      const goBack = (disk: Buffer): Finding[] => {
        disk.copy(bench.disk);
        const check = bench.ledger.takenCheck(point, true);
        check.add(0, bench.disk);
        return check.finish();
      };
      return { bench, atPoint, goBack };
    }

    it("is what it was, goes on from there, and forward again to another point", () => {
      const { bench, atPoint, goBack } = before();
      const later = bench.ledger.pointTaken(bench.ledger.pointAsked());
      const atLater = bench.snapshot();
      expect(goBack(atPoint)).toEqual([]);
      expect(bench.read(0, sizeBytes)).toEqual([]);
      bench.put("write", 2 * unitBytes, unitBytes);
      expect([bench.read(0, sizeBytes), bench.restart()]).toEqual([[], []]);
      atLater.copy(bench.disk);
      const check = bench.ledger.takenCheck(later, true);
      check.add(0, bench.disk);
      expect([check.finish(), bench.read(0, sizeBytes)]).toEqual([[], []]);
    });

    it("is found where something of it was not undone, at once or later", () => {
      const { bench, atPoint, goBack } = before();
      const undone = bench.snapshot();
      const partly = Buffer.from(atPoint);
      undone.copy(partly, 20 * unitBytes, 20 * unitBytes, 21 * unitBytes);
      expect(kinds(goBack(partly))).toEqual(["stale"]);
      const second = before();
      const old = second.bench.snapshot();
      expect(second.goBack(second.atPoint)).toEqual([]);
      old.copy(second.bench.disk, unitBytes, unitBytes, 2 * unitBytes);
      expect(kinds(second.bench.read(0, sizeBytes))).toEqual(["stale"]);
      expect(bench.ledger.unpromisedLosses).toBe(0);
    });

    it("is found where it lacks what was acknowledged before the point", () => {
      const { atPoint, goBack } = before();
      atPoint.fill(0, 3 * unitBytes, 4 * unitBytes);
      expect(kinds(goBack(atPoint))).toEqual(["lost"]);
    });
  });

  describe("points of a running volume", () => {
    /** What was before is acknowledged; then a point is asked for, something is under way, and the point is answered. */
    function pointAround(inside: (bench: Bench) => Buffer): { findings: () => Finding[]; bench: Bench } {
      const bench = new Bench("acknowledged");
      bench.put("write", 0, 4 * unitBytes);
      bench.put("write", 8 * unitBytes, unitBytes);
      const asked = bench.ledger.pointAsked();
      const shown = inside(bench);
      const check = bench.ledger.pointCheck(asked);
      for (let round = 0; round < 20; round += 1) bench.put("write", 0, 16 * unitBytes);
      return {
        bench,
        findings: () => {
          check.add(0, shown);
          return check.finish();
        },
      };
    }

    it("takes what was acknowledged before, with or without what was under way, though all was overwritten since", () => {
      expect(pointAround((bench) => bench.snapshot()).findings()).toEqual([]);
      const without = pointAround((bench) => {
        const shown = bench.snapshot();
        bench.put("write", unitBytes, unitBytes);
        return shown;
      });
      expect(without.findings()).toEqual([]);
      const beside = pointAround((bench) => {
        bench.put("write", unitBytes, unitBytes);
        return bench.snapshot();
      });
      expect(beside.findings()).toEqual([]);
    });

    it("finds what was acknowledged before and is not there", () => {
      const { findings } = pointAround((bench) => {
        const shown = bench.snapshot();
        shown.fill(0, 8 * unitBytes, 9 * unitBytes);
        return shown;
      });
      expect(kinds(findings())).toEqual(["lost"]);
    });

    it("finds what was written only after the answer", () => {
      const made = pointAround((bench) => bench.disk);
      expect(kinds(made.findings())).not.toEqual([]);
    });

    it("finds a point that is not a prefix: the later of two is there, the earlier is not", () => {
      const { findings } = pointAround((bench) => {
        const before = bench.snapshot();
        bench.put("write", unitBytes, unitBytes);
        bench.put("write", 20 * unitBytes, unitBytes);
        const shown = bench.snapshot();
        before.copy(shown, unitBytes, unitBytes, 2 * unitBytes);
        return shown;
      });
      expect(kinds(findings())).toEqual(["not a prefix"]);
    });
  });

  it("goes on from bytes that it had forgotten: named once, at the restart, and then what the disk is known to hold", () => {
    const bench = new Bench("acknowledged");
    bench.put("write", 0, unitBytes);
    const old = bench.snapshot();
    // So often that the first write is not remembered any more.
    for (let count = 0; count < 40; count += 1) bench.put("write", 0, unitBytes);
    old.copy(bench.disk);
    expect(kinds(bench.restart())).toEqual(["stale"]);
    expect(bench.read(0, unitBytes)).toEqual([]);
    expect(bench.read(100, 50)).toEqual([]);
    // Part of it overwritten: the rest is still the old one's.
    bench.put("write", 100, 50);
    expect(bench.read(0, unitBytes)).toEqual([]);
    expect(bench.restart()).toEqual([]);
    bench.disk[300] = 0xff ^ (bench.disk[300] ?? 0);
    expect(kinds(bench.restart())).toEqual(["torn"]);
  });
});
