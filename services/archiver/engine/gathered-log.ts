/*
 * A segment on its way: batches that continue what is archived, from the log (log-sealer.ts) or as they become durable (live-log.ts).
 * Says Corrupt, not "broken invariant", where the log does not continue the archived history.
 */
import { VarveError } from "#shared/domain/errors.ts";
import { type RecordFacts, SegmentBuilder } from "#shared/formats/segment-object.ts";

export class GatheredLog extends SegmentBuilder {
  /** Checksum of the last batch; before the first, what that must continue. */
  chain: bigint | null;
  /** What the first batch must continue. */
  readonly begunBehind: bigint | null;
  /** Bytes of records from before counting began. */
  backlogBytes = 0;
  /** The entry that comes next. */
  nextLsn: number;
  private readonly countedFromLsn: number;

  constructor(
    owner: ConstructorParameters<typeof SegmentBuilder>[0],
    chain: bigint | null,
    fromLsn: number,
    countedFromLsn: number,
  ) {
    super(owner);
    this.chain = chain;
    this.begunBehind = chain;
    this.nextLsn = fromLsn;
    this.countedFromLsn = countedFromLsn;
  }

  override addRecord(batch: RecordFacts): void {
    const follows =
      batch.firstLsn === this.nextLsn && (this.chain ?? batch.previousChecksum) === batch.previousChecksum;
    if (!follows) throw logBreaks(this.nextLsn, batch.firstLsn);
    super.addRecord(batch);
    if (batch.firstLsn < this.countedFromLsn) this.backlogBytes += batch.record.length;
    this.chain = batch.checksum;
    this.nextLsn = batch.firstLsn + batch.entryCount;
  }
}

export function logBreaks(expectedLsn: number, foundLsn: number): VarveError {
  return new VarveError(
    "ArchiveChainError",
    "Corrupt",
    `the log does not continue the archived history: expected the batch at LSN ${expectedLsn}, found one at LSN ${foundLsn} of another chain`,
    {
      hint: "Data directory and bucket do not belong together. Was one of them put back from a backup? See `varve rescue`.",
      fields: { expectedLsn, foundLsn },
    },
  );
}
