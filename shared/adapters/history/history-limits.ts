/*
 * The limits of reading the past as one value, so that tests can make them small; running, they are those of
 * shared/domain/limits.ts. histories.ts takes it, everything in this folder reads it.
 */
import { limits } from "#shared/domain/limits.ts";

export interface HistoryLimits {
  readonly frameCacheBytes: number;
  readonly pageCacheBytes: number;
  readonly headCacheBytes: number;
  readonly indexCacheBytes: number;
  readonly fetchBytesMax: number;
  readonly fetchesMax: number;
  readonly runBytes: number;
  readonly readAheadBytes: number;
  readonly bulkReadBytes: number;
  readonly footerReadsMax: number;
  readonly mapRangesMax: number;
  readonly foldStepsMax: number;
  readonly settleMs: number;
  readonly manifestMs: number;
  readonly exactSegmentsMax: number;
  readonly candidatesMax: number;
}

export const historyLimits: HistoryLimits = {
  frameCacheBytes: limits.historyFrameCacheBytes,
  pageCacheBytes: limits.historyPageCacheBytes,
  headCacheBytes: limits.historyHeadCacheBytes,
  indexCacheBytes: limits.historyIndexCacheBytes,
  fetchBytesMax: limits.historyFetchBytesMax,
  fetchesMax: limits.historyFetchesMax,
  runBytes: limits.historyRunBytes,
  readAheadBytes: limits.historyReadAheadBytes,
  bulkReadBytes: limits.historyBulkReadBytes,
  footerReadsMax: limits.historyFooterReadsMax,
  mapRangesMax: limits.historyMapRangesMax,
  foldStepsMax: limits.historyFoldStepsMax,
  settleMs: limits.historySettleMs,
  manifestMs: limits.historyManifestMs,
  exactSegmentsMax: limits.historyExactSegmentsMax,
  candidatesMax: limits.historyCandidatesMax,
};
