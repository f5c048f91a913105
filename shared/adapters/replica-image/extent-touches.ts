/*
 * When each extent was last written (LSN) and last used (hour), for eviction: an extent goes only where nothing after a base
 * changed it, the coldest first. Kept in pages of 1024 extents, made when first touched: 12 KiB for each 4 GiB of disk in
 * use. What was touched before the image was attached counts as written at the attach, and as used when the file of last
 * use says (docs/formats/last-use.md). Owned by image-extents.ts.
 */
import { limits } from "#shared/domain/limits.ts";
import type { LastUse } from "#shared/formats/last-use.ts";

const pageExtents = 1024;
export const hourMs = 3_600_000;

interface Page {
  readonly lsns: Float64Array;
  readonly hours: Uint32Array;
}

export class ExtentTouches {
  readonly #attachedLsn: number;
  readonly #attachedHour: number;
  readonly #pages = new Map<number, Page>();
  /** The present hour since 1970; moved on by whoever has a clock. */
  hour: number;

  constructor(attachedLsn: number, hour: number) {
    this.#attachedLsn = attachedLsn;
    this.#attachedHour = hour;
    this.hour = hour;
  }

  /** Bytes [start, end) were changed by an entry up to `lsn`. */
  wrote(start: number, end: number, lsn: number): void {
    const last = Math.ceil(end / limits.extentBytes);
    for (let extent = Math.floor(start / limits.extentBytes); extent < last; extent += 1) {
      const page = this.#page(extent);
      page.lsns[extent % pageExtents] = lsn;
      page.hours[extent % pageExtents] = this.hour;
    }
  }

  read(offset: number, length: number): void {
    const last = Math.ceil((offset + length) / limits.extentBytes);
    for (let extent = Math.floor(offset / limits.extentBytes); extent < last; extent += 1) {
      this.#page(extent).hours[extent % pageExtents] = this.hour;
    }
  }

  /** The greatest LSN that may have changed the extent. */
  lsnOf(extent: number): number {
    const page = this.#pages.get(Math.floor(extent / pageExtents));
    return Math.max(this.#attachedLsn, page?.lsns[extent % pageExtents] ?? 0);
  }

  hourOf(extent: number): number {
    const page = this.#pages.get(Math.floor(extent / pageExtents));
    return page?.hours[extent % pageExtents] ?? this.#attachedHour;
  }

  /** Hours as the file of last use keeps them. */
  record(extents: number): LastUse {
    const runs: { extents: number; hour: number }[] = [];
    for (let extent = 0; extent < extents; extent += 1) {
      const hour = this.hourOf(extent);
      const last = runs[runs.length - 1];
      if (last?.hour === hour) last.extents += 1;
      else runs.push({ extents: 1, hour });
    }
    return { runs };
  }

  /** Hours of a former attach. A clock that went back leaves no extent used in the future. */
  restore({ runs }: LastUse): void {
    let extent = 0;
    for (const run of runs) {
      const hour = Math.min(run.hour, this.hour);
      for (const end = extent + run.extents; extent < end; extent += 1) {
        this.#page(extent).hours[extent % pageExtents] = hour;
      }
    }
  }

  #page(extent: number): Page {
    const number = Math.floor(extent / pageExtents);
    let page = this.#pages.get(number);
    if (page === undefined) {
      page = {
        lsns: new Float64Array(pageExtents),
        hours: new Uint32Array(pageExtents).fill(this.#attachedHour),
      };
      this.#pages.set(number, page);
    }
    return page;
  }
}
