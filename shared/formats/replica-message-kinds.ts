/*
 * The messages between gateways, archivers, storage nodes and the api as values (docs/formats/replica-message.md): what each says. Their
 * bytes are replica-message.ts, which gives them on to everybody.
 */
import type { ErrorKind } from "#shared/domain/errors.ts";
import type { FillOrigin, ReplicaReport } from "#shared/domain/replica-report.ts";

/** A gateway asks for bytes as of an LSN or later. */
export interface ReadRequest {
  readonly type: "read";
  readonly offset: number;
  readonly length: number;
  readonly leastLsn: number;
  /** How long a replica that is behind may wait for it. */
  readonly waitMs: number;
}

/** A gateway asks where a replica stands; a state message answers. */
export interface StateRequest {
  readonly type: "ask";
}

/** An archiver asks for bytes of an extent, for a base: only where they are in the node's own file. */
export interface ExtentRequest extends Omit<ReadRequest, "type"> {
  readonly type: "extent";
}

/** An archiver asks which of so many extents from `first` on may hold anything but zeroes. */
export interface SurveyRequest {
  readonly type: "survey";
  readonly first: number;
  readonly count: number;
  readonly leastLsn: number;
  readonly waitMs: number;
}

/** The bytes of an extent, or a bit for each extent that was asked of (least significant first; 1: may hold bytes). */
export interface BaseAnswer<T extends "extentBytes" | "surveyed"> {
  readonly type: T;
  /** Entries up to here had been applied before anything was read. */
  readonly appliedLsn: number;
  /** The greatest LSN whose apply had begun when all was read. */
  readonly begunLsn: number;
}

/** A gateway asks for several short reads at once; their ranges are the payload (peek-ranges.ts). */
export interface PeekRequest {
  readonly type: "peek";
  readonly leastLsn: number;
}

/** Bytes of those that were in memory, in the order of the ranges; the others are to be asked for alone. */
export interface PeekAnswer {
  readonly type: "peeked";
  readonly shownLsn: number;
  readonly epoch: number;
  /** A bit for each range, the first one least significant. 0: none, or the replica is behind. */
  readonly found: number;
}

/** A gateway on the same host asks to read the image itself. */
export interface GrantRequest {
  readonly type: "grant";
}

/** It may: the image, and the token that its note shows for as long (docs/formats/read-grant.md). */
export interface GrantAnswer {
  readonly type: "granted";
  readonly imagePath: string;
  readonly token: string;
  readonly epoch: number;
}

/** The bytes, and the newest entry that they may show. */
export interface ReadAnswer {
  readonly type: "bytes";
  readonly shownLsn: number;
  readonly epoch: number;
}

/** Why not. Behind: kind Retry, tag ReplicaBehind. */
export interface ReplicaRefusal {
  readonly type: "refused";
  readonly kind: ErrorKind;
  readonly tag: string;
  readonly message: string;
  readonly epoch: number;
}

export interface StateMessage {
  readonly type: "state";
  readonly report: ReplicaReport;
}

/** Who fills a replica asks another one where it stands in the log; a place answers. */
export interface PlaceRequest {
  readonly type: "where";
}

/** Where in the log a replica stands: what a copy of it begins with. */
export interface PlaceAnswer {
  readonly type: "place";
  readonly line: string;
  readonly epoch: number;
  readonly appliedLsn: number;
  /** Of the batch at appliedLsn. */
  readonly checksum: bigint;
  readonly sequence: number;
  readonly sizeBytes: number;
}

/** Who fills a replica asks for what is in a range, as of an LSN or later. */
export interface CopyRequest {
  readonly type: "copy";
  readonly offset: number;
  readonly length: number;
  readonly leastLsn: number;
}

/** A hole of skippedBytes from the offset on, then the payload's bytes; without payload the whole range is a hole. */
export interface CopyAnswer {
  readonly type: "piece";
  readonly skippedBytes: number;
  readonly appliedLsn: number;
  /** Behind the read: entries up to it may be among the bytes. */
  readonly begunLsn: number;
}

/** A replica applies up to `lsn`, or stays where it is when that is further, for so long. 0 ms: it goes on. */
export interface HoldRequest {
  readonly type: "hold";
  readonly lsn: number;
  readonly holdMs: number;
}

/** Where it stands now; it stays there. */
export interface HeldAnswer {
  readonly type: "held";
  readonly appliedLsn: number;
}

/** Checksums of extents, the first at `offset`. */
export interface HashRequest {
  readonly type: "hash";
  readonly offset: number;
  readonly extents: number;
}

/** Eight bytes of payload for each extent: xxh64 of its bytes. */
export interface HashAnswer {
  readonly type: "hashes";
  readonly appliedLsn: number;
}

/** Fills the replica again; a state message answers. */
export interface RepairRequest {
  readonly type: "repair";
  /** From there alone; null: from the bucket if there is one, else from the others. */
  readonly from: FillOrigin | null;
}

/** The api has a replica fetch everything that is in the bucket only; a state message answers at once. */
export interface FillRequest {
  readonly type: "fill";
}

/** The api has a replica give back what was not used for so long, under this name; evicted answers at once, and is asked for again until it is done. */
export interface EvictColdRequest {
  readonly type: "evict";
  readonly run: string;
  readonly coldAfterMs: number;
}

export interface EvictedAnswer {
  readonly type: "evicted";
  readonly extents: number;
  readonly isDone: boolean;
}

/** The gateway that serves the volume gives it a new size; resized answers when the log has it and a replica applied it. */
export interface ResizeRequest {
  readonly type: "resize";
  readonly sizeBytes: number;
}

export interface ResizedAnswer {
  readonly type: "resized";
  readonly sizeBytes: number;
}

/** The gateway that serves the volume appends a mark of that name; marked answers when it is durable. */
export interface MarkRequest {
  readonly type: "mark";
  readonly name: string;
}

export interface MarkedAnswer {
  readonly type: "marked";
  readonly lsn: number;
}

/** The api wants to write the volume itself: who serves it closes it and lets its lease go; yielded answers. */
export interface YieldRequest {
  readonly type: "yield";
  /** Clients are cut off; else it is refused while there are any. */
  readonly isForced: boolean;
}

export interface YieldedAnswer {
  readonly type: "yielded";
  /** Clients that were cut off. */
  readonly disconnected: number;
}

/** Can this node open its volume as it was at an LSN from the bucket? The same comes back where it can. */
export interface ReachMessage {
  readonly type: "reach" | "reached";
  readonly lsn: number;
}

/** The archiver that collects the bucket does so now, under this name; collected answers at once, and says whether it is done. */
export interface CollectRequest {
  readonly type: "collect";
  readonly run: string;
  readonly dryRun: boolean;
  readonly acceptClock: boolean;
}

/** When it is done, the payload is its report as JSON. */
export interface CollectedAnswer {
  readonly type: "collected";
  readonly isDone: boolean;
}

/** The api has a replica compared with the bucket under this name; scrubbed answers at once, and is asked for again until it is done. */
export interface ScrubRequest {
  readonly type: "scrub";
  readonly run: string;
  readonly isRepair: boolean;
  readonly bytesPerSecond: number;
  /** The first extent, and how many; 0: all. */
  readonly first: number;
  readonly count: number;
}

/** When it is done, the payload is its report as JSON. */
export interface ScrubbedAnswer {
  readonly type: "scrubbed";
  readonly isDone: boolean;
  readonly doneBytes: number;
  readonly totalBytes: number;
}

/** The api names the checksum that an extent had at an LSN; the replica's is another, and `peer` has these bytes. mended answers. */
export interface MendRequest {
  readonly type: "mend";
  readonly extent: number;
  readonly lsn: number;
  /** As in hashes, 16 hex digits. */
  readonly sum: string;
  readonly peer: string;
}

/** False: something else was written there meanwhile, or the peer has other bytes now. Nothing was changed then. */
export interface MendedAnswer {
  readonly type: "mended";
  readonly isMended: boolean;
}

export type ScrubMessage = ScrubRequest | ScrubbedAnswer | MendRequest | MendedAnswer;

export type ReplicaMessage =
  | ScrubMessage
  | CollectRequest
  | CollectedAnswer
  | MarkRequest
  | MarkedAnswer
  | ResizeRequest
  | ResizedAnswer
  | YieldRequest
  | YieldedAnswer
  | ReachMessage
  | ReadRequest
  | PeekRequest
  | PeekAnswer
  | StateRequest
  | GrantRequest
  | GrantAnswer
  | ReadAnswer
  | ReplicaRefusal
  | StateMessage
  | ExtentRequest
  | SurveyRequest
  | BaseAnswer<"extentBytes">
  | BaseAnswer<"surveyed">
  | PlaceRequest
  | PlaceAnswer
  | CopyRequest
  | CopyAnswer
  | HoldRequest
  | HeldAnswer
  | HashRequest
  | HashAnswer
  | FillRequest
  | EvictColdRequest
  | EvictedAnswer
  | RepairRequest;

type HolderMessage = Extract<
  ReplicaMessage,
  { type: "resize" | "resized" | "marked" | "reach" | "reached" | "yield" | "yielded" }
>;

/** What the api asks before it changes a volume, and what is answered: each with one number. */
export function holderMessageOf(type: HolderMessage["type"], value: number): HolderMessage {
  if (type === "resize" || type === "resized") return { type, sizeBytes: value };
  if (type === "yield") return { type, isForced: value !== 0 };
  if (type === "yielded") return { type, disconnected: value };
  return { type, lsn: value };
}
