/*
 * Every maximum in one place, with the sum that justifies it. Domain, formats, adapters and engines import from here;
 * what a user may set is in shared/shell/config.ts and is checked against these.
 */

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;

export const limits = {
  /** Unit of alignment in log files: the block size of every common file system and the largest common sector. */
  blockBytes: 4 * KiB,
  /** Room for a batch's header in front of its payload: one block. */
  batchHeaderBytesMax: 4 * KiB,
  /** Fixed fields in front of a record's packed header (docs/formats/log-record.md). */
  recordFixedBytes: 72,
  /** Packed header without entries: array, 16 hex digits, two numbers up to 2^53, array of up to 800: 1 + 17 + 9 + 9 + 3. */
  recordPreludeBytesMax: 39,
  /** A packed range or number entry: kind 1, offset 9, length 9. So 200 of them and the prelude take 3,839 of 4,024 bytes. */
  recordEntryBytesMax: 19,
  batchEntriesMax: 200,
  /** Payload of one batch: four of 1 MiB fit a group; a 32 MiB NBD write becomes eight batches. */
  batchPayloadBytesMax: 4 * MiB,
  /** One gathered log write: two largest batches, 64 pieces. Longer groups only add latency (measured: 4 MiB writes reach the disk's rate). */
  groupBytesMax: 8 * MiB,
  groupBatchesMax: 64,
  /** Groups under way at once: one being written while the next gathers; more only adds latency. */
  groupsInFlightMax: 2,
  logSegmentBytes: 32 * MiB,
  /** Blocks are written once with zeroes this far ahead of the append position. */
  logPreparedAheadBytes: 16 * MiB,
  logBytesMaxDefault: 10 * GiB,
  /** Log kept after a checkpoint although the image no longer needs it: `image discard` of young volumes, `log inspect`. */
  logRetainedBytesDefault: 256 * MiB,
  /** In `flush` volumes: stored but not yet durable. A sync starts at half of it, writers wait at all of it. */
  unsyncedBytesMax: 32 * MiB,
  /** ... and never waits longer than this. */
  unsyncedAgeMsMax: 1000,
  /** Free space that is never promised to anybody: reserve file of a data directory. */
  reserveBytes: 256 * MiB,
  /** Payload memory of all volumes together (slabs lent out: in flight, queued, in overlays). */
  payloadBytesMax: 128 * MiB,
  checkpointDirtyBytes: 512 * MiB,
  checkpointAgeMs: 30_000,
  /** Image bytes between two writeback starts. */
  writebackSliceBytes: 8 * MiB,
  extentBytes: 4 * MiB,
  volumeBytesMin: 512,
  volumeBytesMax: 2 ** 50,
  volumesMax: 1024,
  nameLengthMax: 63,
  /** "host pid" of an epoch entry: a host name has at most 253 characters, but what people need to find it fits here. */
  writerLengthMax: 128,
  /** NBD. */
  nbdPayloadBytesMax: 32 * MiB,
  nbdDrainedPayloadBytesMax: 64 * MiB,
  nbdOptionBytesMax: 64 * KiB,
  nbdOptionsMax: 256,
  nbdHandshakeMs: 30_000,
  nbdConnectionsMax: 256,
  nbdRequestsInFlightMax: 1024,
  nbdReplyBytesQueuedMax: 40 * MiB,
  nbdExtentsMax: 4096,
} as const;

/** LSNs, offsets and lengths are safe integers; u64 exists only inside codecs. */
export function isSafeOffset(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}
