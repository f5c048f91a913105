/*
 * The points that are open in a process: one PointSource for each (volume, LSN), shared by all exports, block reads and fills
 * of it, and kept for a while after the last has left. Called by volume-past.ts; docs/specs/points.md §2 has the rules.
 * A volume that is closed for a change takes its sources along; who holds one gets it anew with the next read.
 */
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Clock, Timer } from "#shared/ports/clock.ts";
import type { PointSource } from "#shared/ports/history.ts";

interface OpenPoint {
  readonly volumeId: string;
  readonly lsn: number;
  readonly source: Promise<PointSource>;
  users: number;
  idleSinceMs: number;
}

/** A hold on a point: `source()` until `release()`. */
export interface PointHold {
  readonly volumeId: string;
  readonly lsn: number;
  source(): Promise<PointSource>;
  /** Idempotent. */
  release(): void;
}

export class PointSources {
  private readonly clock: Clock;
  private readonly open = new Map<string, OpenPoint>();
  /** Holds by point, also of points that were closed under them. */
  private readonly held = new Map<
    string,
    { readonly volumeId: string; readonly lsn: number; count: number }
  >();
  private timer: Timer | null = null;
  private closed = false;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** Takes a hold; `open` is called where the point is not open. Rejects as `open` does, with nothing held. */
  async hold(volumeId: string, lsn: number, open: () => Promise<PointSource>): Promise<PointHold> {
    const key = `${volumeId}@${lsn}`;
    const held = this.held.get(key) ?? { volumeId, lsn, count: 0 };
    held.count += 1;
    this.held.set(key, held);
    let mine: OpenPoint | null = null;
    let released = false;
    const leave = (): void => {
      if (mine !== null) this.leave(mine);
      mine = null;
    };
    const hold: PointHold = {
      volumeId,
      lsn,
      source: async () => {
        if (mine === null || this.open.get(key) !== mine) {
          mine = this.enter(key, volumeId, lsn, open);
        }
        return await mine.source;
      },
      release: () => {
        if (released) return;
        released = true;
        leave();
        held.count -= 1;
        if (held.count === 0) this.held.delete(key);
      },
    };
    try {
      await hold.source();
    } catch (cause) {
      hold.release();
      throw cause;
    }
    return hold;
  }

  /** Points that somebody reads from now, or may again: the collector keeps them. */
  inUse(): readonly { readonly volumeId: string; readonly lsn: number }[] {
    const used = new Map<string, { readonly volumeId: string; readonly lsn: number }>();
    for (const [key, { volumeId, lsn }] of this.held) used.set(key, { volumeId, lsn });
    for (const [key, { volumeId, lsn }] of this.open) used.set(key, { volumeId, lsn });
    return [...used.values()];
  }

  /** Closes the sources of a volume, also those in use: their reads fail, the next ones open anew. */
  async closeVolume(volumeId: string): Promise<void> {
    const gone = [...this.open].filter(([, point]) => point.volumeId === volumeId);
    await Promise.all(gone.map(async ([key]) => this.shut(key)));
  }

  async close(): Promise<void> {
    this.closed = true;
    this.timer?.cancel();
    this.timer = null;
    await Promise.all([...this.open.keys()].map(async (key) => this.shut(key)));
  }

  private enter(key: string, volumeId: string, lsn: number, open: () => Promise<PointSource>): OpenPoint {
    if (this.closed) {
      throw new VarveError("HostClosingError", "Retry", "the server is shutting down", {
        hint: "Try again when it runs again.",
      });
    }
    const there = this.open.get(key);
    if (there !== undefined) {
      there.users += 1;
      return there;
    }
    this.makeRoom();
    const point: OpenPoint = { volumeId, lsn, source: open(), users: 1, idleSinceMs: 0 };
    this.open.set(key, point);
    // A point that did not open is not kept; whoever waits for it is told by the promise itself.
    point.source.catch(() => {
      if (this.open.get(key) === point) this.open.delete(key);
    });
    return point;
  }

  private leave(point: OpenPoint): void {
    point.users -= 1;
    if (point.users > 0) return;
    point.idleSinceMs = this.clock.monotonicMs();
    this.sweepLater();
  }

  private makeRoom(): void {
    if (this.open.size < limits.openPointsMax) return;
    let oldest: [string, OpenPoint] | null = null;
    for (const entry of this.open) {
      if (entry[1].users === 0 && (oldest === null || entry[1].idleSinceMs < oldest[1].idleSinceMs))
        oldest = entry;
    }
    if (oldest === null) {
      throw new VarveError(
        "PointsFullError",
        "Retry",
        `${limits.openPointsMax} points are open, the maximum`,
        {
          hint: "Disconnect a client of another point first: GET /v1/connections lists them.",
          fields: { openPointsMax: limits.openPointsMax },
        },
      );
    }
    this.shut(oldest[0]).catch(() => undefined); // shut() tells nobody of a failed close: nothing was written
  }

  private async shut(key: string): Promise<void> {
    const point = this.open.get(key);
    if (point === undefined) return;
    this.open.delete(key);
    await point.source.then(async (source) => source.close()).catch(() => undefined);
  }

  private sweepLater(): void {
    if (this.timer !== null || this.closed) return;
    this.timer = this.clock.after(limits.idlePointMs, () => {
      this.timer = null;
      const nowMs = this.clock.monotonicMs();
      let waiting = false;
      for (const [key, point] of this.open) {
        if (point.users > 0) continue;
        if (nowMs - point.idleSinceMs >= limits.idlePointMs) this.shut(key).catch(() => undefined);
        else waiting = true;
      }
      if (waiting) this.sweepLater();
    });
  }
}
