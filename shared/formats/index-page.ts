/*
 * An index page in the bucket (docs/formats/index-page.md): the summaries of a run of segments that left the manifest's
 * tail. The archiver writes one when the tail is full; point sources find segments in it, the timeline and changed ranges
 * are read from it alone.
 */
import type { IndexPageRef, SegmentSummary } from "#shared/domain/archive.ts";
import { limits } from "#shared/domain/limits.ts";
import { id, isSegmentKey, segmentSummary, summaryMistake } from "./archive-shape.ts";
import { fields, list } from "./json-shape.ts";
import { type BadObject, type ObjectKind, openObject, sealObject } from "./sealed-object.ts";

export const indexPageVersion = 1;

export interface IndexPage {
  readonly volumeId: string;
  /** 1 to 256, ascending. A hole between two of them is a gap of the manifest. */
  readonly segments: readonly SegmentSummary[];
}

const indexPageKind: ObjectKind<IndexPage> = {
  magic: "VIDX",
  version: indexPageVersion,
  name: "index page",
  shape: fields<IndexPage>({ volumeId: id, segments: list(segmentSummary, limits.manifestSegmentsMax, 1) }),
  mistake: ({ volumeId, segments }) => {
    let last = 0;
    for (const segment of segments) {
      const mistake = summaryMistake(segment);
      if (mistake !== null) return mistake;
      if (!isSegmentKey(volumeId, segment)) return `${segment.key} is not this segment's key`;
      if (segment.firstLsn <= last) return `${segment.key}: out of order`;
      last = segment.lastLsn;
    }
    return null;
  },
};

export function encodeIndexPage(page: IndexPage): Buffer {
  return sealObject(indexPageKind, page);
}

/** Reads a whole object. Never throws. */
export function decodeIndexPage(object: Buffer): IndexPage | BadObject {
  return openObject(indexPageKind, object);
}

/** What a manifest says of a page under that key. */
export function indexPageRefOf(page: IndexPage, key: string): IndexPageRef {
  const { segments } = page;
  return {
    key,
    firstLsn: Math.min(...segments.map((segment) => segment.firstLsn)),
    lastLsn: Math.max(...segments.map((segment) => segment.lastLsn)),
    segments: segments.length,
    recordBytes: segments.reduce((sum, segment) => sum + segment.recordBytes, 0),
    wallMinMs: Math.min(...segments.map((segment) => segment.wallMinMs)),
    wallMaxMs: Math.max(...segments.map((segment) => segment.wallMaxMs)),
  };
}
