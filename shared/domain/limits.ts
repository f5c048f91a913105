/*
 * Every maximum in one place, with the sum that justifies it. Domain, formats, adapters and engines import from here;
 * what a user may set is in shared/shell/config.ts and is checked against these.
 */
import { scrubLimits } from "./scrub-limits.ts";

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
  /** Blocks are written once with zeroes this far ahead of the append position; a log that is written fast, further: so long at its rate. */
  logPreparedAhead: { bytesMin: 16 * MiB, bytesMax: 192 * MiB, ms: 1500 },
  logBytesMaxDefault: 10 * GiB,
  /** Log kept after a checkpoint although the image no longer needs it: `image discard` of young volumes, `log inspect`. */
  logRetainedBytesDefault: 256 * MiB,
  /** In `flush` volumes: stored but not yet durable. A sync starts at half of it, writers wait at all of it. */
  unsyncedBytesMax: 32 * MiB,
  unsyncedAgeMsMax: 1000, // ... and never waits longer than this
  /** One JetStream message with its headers, below the server's own max_payload of 1 MiB (its default) ... */
  jetstreamMessageBytesMax: 1 * MiB,
  /** ... by this much: subject, headers, what the server adds. */
  jetstreamMarginBytes: 8 * KiB,
  /** Below this a write that stands whole in a connection's input (320 KiB) would not fit one. */
  jetstreamMessageBytesMin: 512 * KiB,
  /** Batches are gathered up to this while messages are under way: 180 MB/s with a sync per message, and 1.5 ms each. */
  jetstreamGatherBytes: 256 * KiB,
  /** Messages that are not full wait while so many are under way: a sync for each would cost more than the wait. */
  jetstreamSmallInFlightMax: 2,
  /** Full messages under way: R3 needs 16 to fill its round trips; more than 32 MiB only adds latency. */
  jetstreamMessagesInFlightMax: 16,
  jetstreamBytesInFlightMax: 8 * MiB,
  /** What the server adds to a message in its store: record 34, subject 45, headers 120 bytes. */
  jetstreamStoredOverheadBytes: 256,
  /** Kept of a stream's bytes for the epoch entries of those who open a full log: some 200. */
  jetstreamEpochReserveBytes: 64 * KiB,
  /** One request to JetStream, and one publish; a slow disk's publishes get twice as long after each time-out, up to the greater. */
  jetstreamAnswerMs: 1_000,
  jetstreamAnswerMsMax: 8_000,
  /** Waits between attempts while JetStream is away or has no leader: an election takes 4 to 9 s. */
  jetstreamRetryFirstWaitMs: 50,
  jetstreamRetryWaitMsMax: 200,
  /** The end of a stream is two requests; they are asked again where it grew between them. */
  jetstreamTailReadsMax: 20,
  /** Attempts of one open: an election, and a rival or two. */
  jetstreamOpenMs: 15_000,
  /** Who moved a stream's subject has so long to append its epoch entry; then the writer takes over again. */
  jetstreamTakeoverMs: 3_000,
  /** A log that can't be reached is given up at close after this. */
  jetstreamCloseMs: 10_000,
  /** Places of own messages that the writer remembers: 16 bytes each; every second one is forgotten when they are more. */
  jetstreamPlacesMax: 8_192,
  /** Messages that a follower has asked for and not yet taken: 16 MiB at most. */
  jetstreamFetchMessages: 16,
  jetstreamFetchMs: 10_000,
  /** A follower whose server is gone notices after two of these. */
  jetstreamHeartbeatMs: 1_000,
  /** Free space that is never promised to anybody: reserve file of a data directory. */
  reserveBytes: 256 * MiB,
  /** Payload memory of all volumes together (slabs lent out: in flight, queued, in overlays). */
  payloadBytesMax: 128 * MiB,
  /** Beyond it, for payloads that a halted volume takes in only to refuse: seven of the largest. Of 256 × 4 MiB the rest waits for those. */
  payloadBytesBeyondMax: 32 * MiB,
  /** Of that for marks, 68 KiB each until they are applied. */
  markBytesBeyondMax: 4 * MiB,
  checkpointDirtyBytes: 512 * MiB,
  checkpointAgeMs: 30_000,
  replicaCheckpointBatches: 4096, // on a storage node, which gets 3,000 to 5,000 messages a second back over the network
  /** Image bytes written out at a time before a checkpoint's sync: 10 ms of a 200 MB/s disk, the most that a log sync waits for. */
  writebackSliceBytes: 2 * MiB,
  /** Threads that wait for small cold reads: each return answers those whose pages have come meanwhile; two, so that one slow page holds nobody up. */
  coldReadsAwaitedMax: 2,
  extentBytes: 4 * MiB,
  /** A read of a remote extent waits so long for the bucket, then gets EIO. */
  bucketWaitMs: 30_000,
  /** Partly local extents of one volume, 128 bytes each in memory and checkpoint: all extents of 1 TiB, 36 MB of checkpoint. */
  partialExtentsMax: 262_144,
  /** Parts of blocks in them, 16 bytes each in memory, at most 6 in the checkpoint: odd offsets are rare. */
  partialEdgesMax: 1_048_576,
  /** Points that one replica's extents are read from: a parent, rollbacks, tiering (which moves its older ones along). */
  remotePointsMax: 1024,
  /** Remote reads of all volumes under way, one frame (256 KiB) each: 8 MiB of memory, more requests than a home's uplink takes. */
  remoteReadsMax: 32,
  /** Extents of one volume being fetched at once ... */
  fillsMax: 4,
  /** ... and of all volumes: 32 MiB of memory. */
  fillMemoryMax: 8,
  /** Bucket: one object. A chunk has 4 MiB and its table, a segment 8 MiB and one batch more, a page or manifest far less. */
  objectBytesMax: 32 * MiB,
  /** Keys of objects; one part of a key is a file name in the directory store (and in MinIO and VersityGW). */
  objectKeyLengthMax: 512,
  objectKeyPartLengthMax: 255,
  bucketPrefixLengthMax: 256, // of a bucket URL: with a key and a slash below the 1024 bytes that S3 allows
  /** Retries of one request: at most so many attempts in so long; each wait is drawn from 0 to a doubling bound (full jitter). */
  bucketAttemptsMax: 20,
  bucketRetryMs: 30_000,
  bucketRetryFirstWaitMs: 100,
  bucketRetryWaitMsMax: 5_000,
  /** One attempt: connection, then the answer's head, then the body at 128 KiB/s or better. */
  bucketConnectMs: 5_000,
  bucketAnswerMs: 20_000,
  bucketBytesPerSecondMin: 128 * KiB,
  /** Limits that a user sets: a bucket below a few segments and bases, an image below some extents or a rate below a frame a second is a mistake. */
  bucketBytesMaxLeast: 256 * MiB,
  imageBytesMaxLeast: 64 * MiB,
  bandwidthBytesPerSecondMin: 256 * KiB,
  /** Requests under way: writes (8 segments of 8 MiB are 64 MiB of buffers) and reads apart, so that uploads never hold up a read. */
  bucketWritesInFlightMax: 8,
  bucketReadsInFlightMax: 16,
  /** Requests waiting for their turn, each a closure: more than all NBD requests of a busy connection with several frames each. */
  bucketRequestsQueuedMax: 8192,
  /** Objects in one page of a listing: what S3 gives at most. */
  bucketListPageMax: 1000,
  /** Directories that the directory store remembers as made: 256 of chunks and six of each of 1024 volumes fit. */
  bucketDirectoriesKnownMax: 8192,
  /** Another process that opens the directory removes temporary files, and the put writes again: so often. */
  bucketDirectoryPutsMax: 3,
  /** Piece of an object that goes to the bucket's disk at once: half a millisecond's worth, which a log's sync may have to wait for. */
  bucketDirectorySliceBytes: 256 * KiB,
  /** A segment is sealed at so many bytes of records, or at this age, whichever is first. */
  segmentRecordBytes: 8 * MiB,
  segmentAgeMs: 60_000,
  /** Piece of a segment or chunk that is compressed by itself: the least that a cold read fetches. */
  archiveFrameBytes: 256 * KiB,
  /** JSON inside one metadata object: 256 summaries of 2048 extent runs and 455 events take at most 31 MB. */
  metadataBytesMax: 32 * MiB,
  /** Epochs, marks, resizes and rebases after which a segment is sealed, so that its summary stays below 60 KB of events. */
  segmentEventsMax: 256,
  /** Runs of touched extents in a segment's summary, 30 bytes each; beyond it the smallest holes count as touched. */
  summaryExtentRunsMax: 2048,
  /** Snapshots, bases, pages, gaps and so on in one manifest: at 150 bytes each, seven full lists stay below 16 MiB. */
  manifestListMax: 16_384,
  /** From so many bases in a window on they come less often (each manifest names all of them); the rest of the list is for snapshots' own. */
  manifestBasesDense: 1024,
  manifestBasesMax: 15_360,
  /** Segments that a manifest names itself, 150 bytes each; more become an index page. */
  manifestSegmentsMax: 256,
  /** Snapshots and pins of one volume, 110 bytes each: its history file stays below 1 MiB. */
  snapshotsMax: 4096,
  pinsMax: 4096,
  /** Points open at once, each with an index and caches of its own; and how long one stays open without a client. */
  openPointsMax: 64,
  idlePointMs: 60_000,
  /** NBD LIST: one message per snapshot, clients show them to people. */
  listedSnapshotsMax: 256,
  /** Segments from gathering to the end of their upload, all volumes together: 12 MiB of records each, and one object of that size. */
  archiveSegmentsAtOnceMax: 4,
  /** Segments of busy volumes that fill as their batches become durable, so that their log is not read again: 12 MiB each. */
  archiveLiveSegmentsMax: 3,
  /** Extents of bases from reading to the end of their upload: 4 MiB in a slab, and as much shared with the archive thread, where the chunk takes its place. */
  archiveExtentsAtOnceMax: 2,
  /** Small requests (footers, checks) of one volume at once. */
  archiveRequestsAtOnceMax: 8,
  /** A task of the archive thread waits so long for the processor (a segment takes 60 ms, the largest page a second), then a worker with its own share goes on; that one ends when it was idle for one of these: */
  archiveCalmMs: 1_500,
  archiveSteadyMs: 15_000,
  /** While the bucket is away: first wait, doubled up to a minute, each shortened by up to a half at random. */
  archiveRetryFirstWaitMs: 1_000,
  archiveRetryWaitMsMax: 60_000,
  /** An object is believed this long after its PUT; most stores answer before a power cut can't take it any more. */
  bucketSettleMs: 5 * 60_000,
  /** Damaged manifests before the newest whole one that an open reads. */
  manifestTriesMax: 16,
  /** Chunks whose hashes are known for sharing: 250 bytes each, 256 GiB of extents in 16 MB. */
  knownChunksMax: 65_536,
  /** No base for less log, or a quarter of it where it touches little (base-plan.ts): 32 footers, four round trips, open it as fast. */
  baseLogBytesMin: 256 * MiB,
  /** A base at the latest after so much log (or a sixteenth of what it touches): 128 footers, a quarter of a million writes of 4 KiB. */
  baseLogBytesMax: 1 * GiB,
  /** Image bytes read for bases: a third of what a SATA SSD or two thirds of what a disk gives, and 100 GiB in 27 minutes. */
  baseReadBytesPerSecond: 64 * MiB,
  /** A volume is served without its archive after this; a failed one is opened again after that. */
  archiveOpenMs: 5_000,
  archiveRetryMs: 30_000,
  /** An archiver process asks how full a log is, and where it begins, so often: at 100 MB/s it is half a GB behind, 5 % of 10 GiB. */
  archiveLogLookMs: 5_000,
  /** What it says of each volume goes to the shared table at most so often, and log is released no later than that. */
  archiveReportMs: 500,
  /** Before the first archiver of a volume begins: every gateway has heard by then that its log is kept from now on. */
  archiveNoticeMs: 5_000,
  /** A command that needs the bucket waits so long for it. */
  bucketCommandMs: 30_000,
  /** Whoever waits until something is held looks so often; a settle time is minutes. */
  heldPollMs: 250,
  /** A deletion waits so long for what a store that syncs holds at once. */
  heldWaitMs: 5_000,
  /** Pins that nobody needs are looked for so often. */
  pinUpkeepMs: 60_000,
  /** Connections that were cut are gone after this: what they had in flight is finished first. */
  disconnectMs: 10_000,
  /**
   * What is left to upload at close gets this long: a clean stop's last snapshot should be in the bucket, and service managers
   * kill after 90 s. A bucket that is away is not waited for longer.
   */
  archiveCloseMs: 10_000,
  /** Finished jobs are remembered for whoever asks later. */
  jobsMax: 256,
  /** One block read at a point over HTTP. */
  blockReadBytesMax: 4 * MiB,
  /** Parts of a timeline, changed ranges of one answer. */
  timelineIntervalsMax: 10_000,
  /** Wall and monotonic clock may differ by this between two looks: a slewed or once stepped clock, not a wrong one. */
  clockJumpMs: 5 * 60_000,
  /** After a greater jump nothing expires for so long: a day in which somebody may read the alarm. */
  clockJumpPauseMs: 24 * 3_600_000,
  /** Retention time that is so far behind the wall clock is told: nights in which a machine is off add up. */
  retentionBehindToldMs: 7 * 24 * 3_600_000,
  /** A manifest that is not the present one: far above the 5 minutes in which a store may still lose the newest. */
  supersededManifestMs: 3_600_000,
  /** Any other object that nothing names: longer than the longest upload that still wants to be published. */
  unnamedObjectMs: 24 * 3_600_000,
  /** A deleted volume can come back for so long. */
  deletedVolumeMs: 7 * 24 * 3_600_000,
  /** Deletes between two looks at lease and manifests: one LIST per volume and batch, 256 requests of 20 ms in between. */
  collectorBatchMax: 256,
  /** Deletes side by side: 256 in 1.3 s at 20 ms each. */
  collectorDeletesMax: 4,
  /** Candidates remembered with the time they were first seen: 80 bytes each, a state object below 16 MiB. The rest is seen first later. */
  collectorCandidatesMax: 200_000,
  /** More deleted volumes than that wait one after the other: their time is counted later, never earlier. */
  collectorDeletedVolumesMax: 4096,
  /** Another collector takes over when the lease did not change for so long; the holder renews it each minute. */
  collectorLeaseMs: 10 * 60_000,
  collectorRenewMs: 60_000,
  /** Trimming: two PUTs an hour. Sweeping lists the whole bucket (one request per 1,000 objects). */
  collectorTrimEveryMs: 3_600_000,
  collectorSweepEveryMs: 12 * 3_600_000,
  /** Findings that a report carries; it counts all. */
  bucketFindingsMax: 1000,
  /** Reports of finished checks, collections and scrubs that a server keeps: at most 1,000 findings of 200 bytes each. */
  bucketReportsMax: 16,
  /** Objects fetched side by side by check, mark and exact bases: 4 of at most 8 MiB. */
  bucketReadsMax: 4,
  scrub: scrubLimits,
  /**
   * Reading the past, all points of a process together: 96 frames, 120 pages of 4 GiB each, heads of 2,000 chunks, the footers of
   * about 200 segments: 48 MiB. Beside them what is under way (four whole chunks, stored and open) and the open points' maps.
   */
  historyFrameCacheBytes: 24 * MiB,
  historyPageCacheBytes: 12 * MiB,
  historyHeadCacheBytes: 4 * MiB,
  historyIndexCacheBytes: 8 * MiB,
  historyFetchBytesMax: 32 * MiB,
  historyFetchesMax: 16,
  /** Neighbouring frames that one GET brings: a quarter of a second at 8 MiB/s. */
  historyRunBytes: 2 * MiB,
  historyReadAheadBytes: 8 * MiB,
  /** A read of this length is asked by somebody who fetches ahead himself: no read-ahead, and little is kept. */
  historyBulkReadBytes: 1 * MiB,
  /** Footers under way at once when a point opens: 60 KB each, so 512 segments (4 GiB of log) take 64 rounds. */
  historyFooterReadsMax: 8,
  /** Ranges of one point's map, about 40 bytes each: 160 MiB at the very most, 16 GiB of log in 4 KiB writes. */
  historyMapRangesMax: 4 * 1024 * 1024,
  /** Bases, rollbacks and clones from a point down to the first base. */
  historyFoldStepsMax: 1024,
  /** How often a source looks whether its part of the hot log is in segments by now. */
  historySettleMs: 30_000,
  /** A manifest of a volume that is not served here is asked for again after this. */
  historyManifestMs: 5_000,
  /** Segments whose footers are read for exact ranges or times; beyond it summaries answer. */
  historyExactSegmentsMax: 64,
  /** LSNs that an ambiguous time lists. */
  historyCandidatesMax: 16,
  historyIntervalsMax: 10_000,
  volumeBytesMin: 512,
  volumeBytesMax: 2 ** 50,
  volumesMax: 1024,
  /** Of one volume; each is read by one gateway, and more copies than three machines of a home lab have are no use. */
  replicasMax: 3,
  /** Pools of one node, and tags of one pool: a node's record stays below 64 KiB. */
  poolsMax: 16,
  poolTagsMax: 16,
  /** A volume's orders: 1024 volumes of 1020 bytes with all of them stay below the catalogue's 1 MiB. */
  orderTagsMax: 4,
  schedulesMax: 4,
  scheduleNameMax: 16,
  scheduleEveryMsMax: 366 * 86_400_000,
  /** Four schedules with so many each stay below snapshotsMax. */
  scheduleKeepMax: 1000,
  /** Volumes' schedules are looked at so often. */
  scheduleLookMs: 5000,
  /** One message of a remote read: half of the usual max_payload, so that a large read has several under way. */
  replicaReadBytesMax: 512 * KiB,
  /** Reads that one replica answers at once; the rest waits in NATS: 32 MiB of memory. */
  replicaReadsMax: 64,
  replicaPeek: { rangesMax: 16, readBytesMax: 8 * KiB, messageBytes: 16 * KiB, answerMs: 100 }, // gathered-reads.ts
  /** Copies for others that one node reads at once, and how many a node that fills has under way for each peer: its reads come first. */
  replicaCopiesMax: 4,
  replicaCopiesPerPeer: 2,
  /** What a fill asks for at once; holes of that length are one message, so that an empty TiB takes 16,384 of them. */
  replicaCopyRangeBytes: 64 * MiB,
  bucketFill: { fillsMax: 2, readsMax: 4, cloneReadsMax: 32 }, // of a node, extents of each: 64 MiB; clones: 16 MiB
  /** A fill that gets nothing from anybody for so long begins again: its log may be gone. */
  replicaFillPatienceMs: 60_000,
  /** Replicas are held at one LSN at most so long while they are compared: the overlay fills meanwhile. */
  replicaHoldMsMax: 10_000,
  replicaHashExtentsMax: 16,
  /** Log that only a lost replica needs (silent, halted, still filling) is kept until the log has used so much of its room. */
  replicaLostMs: 60_000,
  replicaLostLogShare: 0.5,
  replicaFillLogShare: 0.75,
  /** A replica that does not answer a read so soon is not waited for alone, and after the second time the read fails. */
  replicaHedgeMs: 250,
  replicaPatienceMs: 30_000,
  /** Writes wait so long for a log that can't be reached, then get EIO. */
  writePatienceMs: 30_000,
  /** Signs of life of replicas and nodes, and after how long without one a replica is not asked first. */
  replicaStateMs: 1_000,
  replicaSilentMs: 3_000,
  nodeRenewalMs: 10_000,
  nodeSilentMs: 30_000,
  /** How long a lease lasts, and how often it is renewed: three renewals in one lease. */
  leaseMsDefault: 3_000,
  leaseRenewalsPerLease: 3,
  /** A strict read is not answered in the last of a lease: 2 % of it, far above what two clocks differ by in 3 s (0.05 %). */
  leaseMarginMs: 60,
  /** A strict read waits so long for proof, then gets EIO: as long as a write for its log. */
  strictReadPatienceMs: 30_000,
  nameLengthMax: 63,
  /** "host pid" of an epoch entry: a host name has at most 253 characters, but what people need to find it fits here. */
  writerLengthMax: 128,
  nbdPayloadBytesMax: 32 * MiB,
  nbdDrainedPayloadBytesMax: 64 * MiB,
  nbdOptionBytesMax: 64 * KiB,
  nbdOptionsMax: 256,
  nbdNameBytesMax: 4096,
  nbdHandshakeMs: 30_000,
  nbdConnectionsMax: 256,
  nbdRequestsInFlightMax: 1024,
  nbdReplyBytesQueuedMax: 40 * MiB,
  nbdExtentsMax: 4096,
  /** Contexts of changed ranges in one session: each holds its ranges in memory. */
  nbdChangedContextsMax: 4,
  /** Options longer than nbdOptionBytesMax are skipped up to this; a client that claims more is closed. */
  nbdSkippedOptionBytesMax: 1 * MiB,
  /** One read of a socket: 9,000 small requests or two payloads of 128 KiB. The spare takes what arrives after a stop. */
  nbdInputBytes: 256 * KiB,
  nbdInputSpareBytes: 64 * KiB,
  /** Payloads up to this wait in the input for their end; longer ones are received where the volume wants them. */
  nbdGatheredPayloadBytesMax: 32 * KiB,
  /** Two pieces of a large read with their headers, or 120 replies of 4 KiB. */
  nbdReplySlabBytes: 516 * KiB,
  /** Send buffer of a unix socket: four pieces, so that the next is read while the client takes the last. TCP tunes its own. */
  nbdSendBufferBytes: 1 * MiB,
  /** A large read goes out in pieces that fit the processor's cache (1 MiB a core is usual) beside the socket's buffer. */
  nbdReadPieceBytes: 256 * KiB,
  /**
   * Reply memory of all connections together, beside one slab that each owns: one and a half reads of the largest size by
   * simple replies. With 128 MiB of payload and 60-100 MiB of Node a server stays below 300 MiB.
   */
  nbdReplyMemoryBytesMax: 48 * MiB,
  /** Replies that the socket has not taken: beyond this a connection reads no further request. */
  nbdUnsentBytesMax: 1 * MiB,
  /** Holes shorter than this are read as data: a chunk costs more than their bytes. */
  nbdHoleBytesMin: 32 * KiB,
  /** Reads from this length on ask for holes first (2 µs against 10 µs for the copy). */
  nbdHoleProbeBytesMin: 64 * KiB,
  /** A client that takes no byte of its replies, or sends no byte of the rest of its payload, for this long is closed. */
  nbdStalledMs: 60_000,
  /** A client that was told the end has this long to close its side, one that is drained to go on with what it owes. */
  nbdClosingMs: 2_000,
  nbdSweepMs: 1_000,
  /** Idle TCP clients are asked for a sign of life after this; ten unanswered questions, a second apart, close. */
  nbdKeepAliveMs: 60_000,
  /** Idle reply memory is given back to the system in steps of at most so many slabs a sweep (4 MiB: below 1 ms). */
  nbdSlabsShrunkPerSweepMax: 8,
  /** A client with one request at a time shows it by so many rounds in a row: several connections rarely do. */
  nbdLoneRoundsMin: 4,
  /** After an answer to a lone client its socket is asked so often (0.6 µs each) before epoll is: a wake-up costs 30-60 µs ... */
  nbdPollAsksMax: 100,
  /** ... at most so often in a row, so that timers and other sockets wait for less than 2 ms. */
  nbdPolledRoundsMax: 16,
  /** Requests handled before other connections get their turn. */
  nbdRequestsPerRoundMax: 256,
} as const;

/** LSNs, offsets and lengths are safe integers; u64 exists only inside codecs. */
export function isSafeOffset(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}
