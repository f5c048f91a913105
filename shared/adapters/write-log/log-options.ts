/*
 * What an embedded log is built from and may be told; defaults from domain/limits.ts. Tests use small segments, the shell
 * passes what the user set. Read by every file of this folder.
 */

import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Clock, Random } from "#shared/ports/clock.ts";
import type { FileStore } from "#shared/ports/file-store.ts";
import { segmentBodyStart } from "./segment-file.ts";

export interface EmbeddedLogOptions {
  readonly segmentBytes?: number;
  /** Blocks are written this far ahead of the append position. */
  readonly preparedAheadBytes?: number;
  /** ... and at most this far, where the log is written fast. */
  readonly preparedAheadBytesMax?: number;
  /** Files of the log, spares included. */
  readonly logBytesMax?: number;
  /** Released log that is kept as history. */
  readonly retainedBytes?: number;
  /** Released segments kept for recycling: the log of one checkpoint cycle, so that a busy log zeroes nothing. */
  readonly sparesMax?: number;
  readonly groupBytesMax?: number;
  readonly groupBatchesMax?: number;
  readonly groupsInFlightMax?: number;
  readonly unsyncedBytesMax?: number;
  readonly unsyncedAgeMsMax?: number;
}

export interface EmbeddedLogParts {
  readonly store: FileStore;
  readonly clock: Clock;
  readonly random: Random;
  /** The log's folder, DATA/volumes/NAME/log. */
  readonly directory: string;
  readonly volumeId: string;
  readonly options?: EmbeddedLogOptions;
}

/** All parts and options, with defaults filled in. */
export interface LogSetup extends Required<EmbeddedLogOptions> {
  readonly store: FileStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly directory: string;
  readonly volumeId: string;
  /** Room that only epoch entries may use: a full log can still be opened. */
  readonly epochReserveBytes: number;
  /** Zeroes are written in slices of this size: 1 ms each, so that an append never queues long behind one. */
  readonly zeroSliceBytes: number;
}

export function logSetup(parts: EmbeddedLogParts): LogSetup {
  const options = parts.options ?? {};
  const segmentBytes = options.segmentBytes ?? limits.logSegmentBytes;
  invariant(segmentBytes % limits.blockBytes === 0, "a segment is whole blocks");
  invariant(segmentBytes >= segmentBodyStart + 4 * limits.blockBytes, "a segment holds records");
  return {
    store: parts.store,
    clock: parts.clock,
    random: parts.random,
    directory: parts.directory,
    volumeId: parts.volumeId,
    segmentBytes,
    preparedAheadBytes: options.preparedAheadBytes ?? limits.logPreparedAhead.bytesMin,
    preparedAheadBytesMax: options.preparedAheadBytesMax ?? limits.logPreparedAhead.bytesMax,
    logBytesMax: options.logBytesMax ?? limits.logBytesMaxDefault,
    retainedBytes: options.retainedBytes ?? limits.logRetainedBytesDefault,
    sparesMax: options.sparesMax ?? limits.checkpointDirtyBytes / limits.logSegmentBytes,
    groupBytesMax: options.groupBytesMax ?? limits.groupBytesMax,
    groupBatchesMax: options.groupBatchesMax ?? limits.groupBatchesMax,
    groupsInFlightMax: options.groupsInFlightMax ?? limits.groupsInFlightMax,
    unsyncedBytesMax: options.unsyncedBytesMax ?? limits.unsyncedBytesMax,
    unsyncedAgeMsMax: options.unsyncedAgeMsMax ?? limits.unsyncedAgeMsMax,
    epochReserveBytes: Math.min(16, segmentBytes / limits.blockBytes / 4) * limits.blockBytes,
    zeroSliceBytes: 256 * 1024,
  };
}
