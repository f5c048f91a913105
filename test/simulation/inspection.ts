/*
 * Looks at an open simulated volume from outside, as a client that is alone does: reads the whole disk, compares what it
 * reports as unallocated with what it reads, and tries whether it still takes a write. Called by run-seed.ts.
 */
import type { VarveError } from "#shared/domain/errors.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { Life } from "./life.ts";

/** The disk's content by reads of random lengths, some of them cold. */
export async function readWholeDisk(life: Life): Promise<Uint8Array> {
  const opened = life.openExport();
  const { sizeBytes } = opened;
  const memory: Slab = { bytes: Buffer.alloc(sizeBytes, 0xaa), address: 0 };
  life.world.disk.faults.coldRead = life.random.pick([0, 0.3, 1]);
  const pieceBytesMax = life.random.pick([16 * 1024, sizeBytes, sizeBytes]);
  try {
    for (let offset = 0; offset < sizeBytes; ) {
      const length = Math.min(sizeBytes - offset, life.random.integer(1, pieceBytesMax + 1));
      const error = await request(life, "reading the whole disk", (done) =>
        opened.read(offset, length, memory, offset, done),
      );
      if (error !== null)
        throw new Error(`reading the whole disk failed: ${error.message}`, { cause: error });
      offset += length;
    }
  } finally {
    life.world.disk.faults.coldRead = 0;
    opened.close();
  }
  return memory.bytes;
}

/** What is reported as unallocated reads as zero; the report covers the whole disk without a gap. */
export function judgeAllocation(life: Life, content: Uint8Array): void {
  const opened = life.openExport();
  for (let offset = 0; offset < content.length; ) {
    const runsMax = life.random.integer(1, 20);
    const runs = opened.blockStatus(offset, content.length - offset, runsMax);
    if (runs.length === 0 || runs.length > runsMax) life.fail(`block status gave ${runs.length} runs`);
    for (const run of runs) {
      if (run.offset !== offset || run.length <= 0) life.fail(`block status has a gap at ${offset}`);
      const end = run.offset + run.length;
      if (!run.allocated) {
        const part = content.subarray(run.offset, end);
        if (Buffer.compare(part, new Uint8Array(part.length)) !== 0) {
          life.fail(`[${run.offset}, ${end}) is reported as unallocated and does not read as zero`);
        }
      }
      offset = end;
    }
    life.world.throwFailure();
  }
  opened.close();
}

/** A volume that is well takes a write, if not at once, then after a checkpoint gave its log room again. */
export async function probe(life: Life): Promise<void> {
  const opened = life.openExport();
  const slab: Slab = { bytes: Buffer.alloc(512, 0x55), address: 0 };
  const bytes = Uint8Array.from(slab.bytes);
  let why = "";
  for (let attempt = 0; attempt < 4; attempt++) {
    let index = -1;
    const error = await request(life, "a write on a volume at rest", (done) => {
      const taken = opened.write(0, slab, 0, bytes.length, true, done);
      if (taken) index = life.oracle.submit({ kind: "write", offset: 0, bytes });
      opened.endOfInput(true);
      return !taken;
    });
    if (index >= 0 && error === null) {
      life.oracle.acknowledge(index);
      life.oracle.promise(index + 1);
      opened.close();
      return;
    }
    if (index >= 0) life.oracle.refuse(index);
    why = error?.message ?? "no payload memory";
    life.world.count("probes refused");
    await life.scheduler.until(life.opened.session.checkpoint(), "a checkpoint");
    await life.scheduler.pass(500);
  }
  throw new Error(`a volume at rest takes no write: ${why}`);
}

/** Issues a request and waits for its end. `issue` says whether it was done on the spot. */
async function request(
  life: Life,
  what: string,
  issue: (done: { complete(error: VarveError | null): void }) => boolean,
): Promise<VarveError | null> {
  let ended = false;
  let failure: VarveError | null = null;
  const done = {
    complete: (error: VarveError | null) => {
      ended = true;
      failure = error;
    },
  };
  if (issue(done)) return null;
  await life.scheduler.while(() => !ended, what);
  return failure;
}
