/*
 * Segments of one busy volume that fill while its batches become durable, from the memory that they still are in: the log was written
 * past the page cache, and to read it again would cost the writers half of their disk. Owned by log-sealer.ts, which reads from the log
 * what is not here. Holds a slot for each segment (limits.archiveLiveSegmentsMax for all volumes); without one it lets go.
 */
import { entryKind } from "#shared/domain/entry.ts";
import type { DurableBatch } from "#shared/ports/archive.ts";
import type { ArchiveParts } from "./archive-parts.ts";
import { GatheredLog } from "./gathered-log.ts";

export interface LiveLogOptions {
  readonly parts: Pick<ArchiveParts, "liveSlots" | "segmentSlots">;
  readonly owner: { readonly volumeId: string; readonly line: string; readonly archiverEpoch: number };
  readonly isWhole: (gathered: GatheredLog) => boolean;
}

interface Filling {
  readonly gathered: GatheredLog;
  readonly firstLsn: number;
  readonly release: () => void;
}

export class LiveLog {
  private readonly options: LiveLogOptions;
  /** Without a hole between them; all but the last are whole. */
  private fillings: Filling[] = [];

  constructor(options: LiveLogOptions) {
    this.options = options;
  }

  /** The first entry that is here; infinite where none is. */
  get firstLsn(): number {
    return this.fillings[0]?.firstLsn ?? Number.POSITIVE_INFINITY;
  }

  /** A batch became durable. `begins`: it may be the first here. */
  follow(batch: DurableBatch, begins: boolean): void {
    const last = this.fillings.at(-1);
    if (last === undefined ? !begins : last.gathered.nextLsn !== batch.firstLsn) return;
    let target = last;
    if (target === undefined || this.options.isWhole(target.gathered)) {
      target = this.start(batch);
      if (target === undefined) return;
    }
    const { slab, recordBytes, kinds, entryCount, firstLsn, previousChecksum, checksum } = batch;
    const record = slab.bytes.subarray(0, recordBytes);
    let eventCount = 0;
    if (batch.values.size > 0) for (const kind of kinds) if (kind > entryKind.trim) eventCount += 1;
    target.gathered.addRecord({ record, entryCount, eventCount, firstLsn, previousChecksum, checksum });
  }

  /** The segment that begins at `lsn`, whole or not; it is the caller's now. */
  take(lsn: number): GatheredLog | null {
    if (this.firstLsn !== lsn) return null;
    const filling = this.fillings.shift();
    filling?.release();
    return filling?.gathered ?? null;
  }

  isWholeAt(lsn: number): boolean {
    const first = this.fillings[0];
    return first?.firstLsn === lsn && this.options.isWhole(first.gathered);
  }

  clear(): void {
    for (const { release } of this.fillings) release();
    this.fillings = [];
  }

  private start(batch: DurableBatch): Filling | undefined {
    const { parts, owner } = this.options;
    const release = parts.liveSlots.takeNow();
    if (release === null) return undefined;
    const { firstLsn, previousChecksum } = batch;
    const gathered = new GatheredLog(owner, previousChecksum, firstLsn, 0);
    const memory = parts.segmentSlots.takeMemory();
    if (memory !== null) gathered.reuse(memory);
    const filling = { gathered, firstLsn, release };
    this.fillings.push(filling);
    return filling;
  }
}
