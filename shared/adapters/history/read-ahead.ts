/*
 * Notices sequential readers of a point and says what to fetch before they ask: a reader who goes on where one of the last
 * reads ended. Pure bookkeeping; point-source.ts does the fetching, one at a time.
 */
import { limits } from "#shared/domain/limits.ts";

interface Stream {
  end: number;
  /** Bytes read in a row. */
  run: number;
  /** Fetched ahead up to here. */
  aheadTo: number;
}

export interface AheadRange {
  readonly start: number;
  readonly end: number;
}

/** Readers side by side that are told apart. */
const streamsMax = 8;

export class ReadAhead {
  private readonly windowBytes: number;
  /** The one used last stands last. */
  private readonly streams: Stream[] = [];

  constructor(windowBytes: number) {
    this.windowBytes = windowBytes;
  }

  /** Notes a read; the range to fetch now, or null. */
  note(offset: number, length: number): AheadRange | null {
    const index = this.streams.findIndex(({ end }) => end === offset);
    const stream = index < 0 ? { end: offset, run: 0, aheadTo: offset } : (this.streams[index] as Stream);
    if (index >= 0) this.streams.splice(index, 1);
    else if (this.streams.length === streamsMax) this.streams.shift();
    this.streams.push(stream);
    stream.end = offset + length;
    stream.run += length;
    // Two frames in a row are a reader; whose window is more than half full needs nothing yet.
    if (stream.run < 2 * limits.archiveFrameBytes) return null;
    const from = Math.max(stream.aheadTo, stream.end);
    if (from - stream.end > this.windowBytes / 2) return null;
    // Up to an extent's end, so that chunks come whole.
    const to = Math.ceil((stream.end + this.windowBytes) / limits.extentBytes) * limits.extentBytes;
    if (to <= from) return null;
    stream.aheadTo = to;
    return { start: from, end: to };
  }
}
