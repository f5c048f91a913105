/*
 * Points of a cluster's volumes as NBD exports: any gateway opens them, whoever serves the volume, from the bucket and the log's tail.
 * Asked by cluster-exports.ts for names with an `@`; next: point-export.ts.
 */
import { parsePoint } from "#shared/domain/point.ts";
import type { VolumeRecord } from "#shared/domain/volume.ts";
import { timeText } from "#shared/domain/wall-time.ts";
import type { BlockExport } from "#shared/ports/block-export.ts";
import type { Clock } from "#shared/ports/clock.ts";
import type { VolumeHistory } from "#shared/ports/history.ts";
import { PointExport } from "./point-export.ts";
import { PointSources } from "./point-sources.ts";

export class ClusterPoints {
  readonly #points: PointSources;
  readonly #historyOf: (record: VolumeRecord) => VolumeHistory;

  /** `historyOf` throws Invalid for volumes that keep no history. */
  constructor(clock: Clock, historyOf: (record: VolumeRecord) => VolumeHistory) {
    this.#points = new PointSources(clock);
    this.#historyOf = historyOf;
  }

  async open(record: VolumeRecord, text: string): Promise<BlockExport> {
    const history = this.#historyOf(record);
    const { lsn, wallTimeMs } = await history.resolve(parsePoint(text));
    const hold = await this.#points.hold(record.id, lsn, async () => history.open(lsn));
    try {
      return new PointExport({
        name: `${record.name}@${text}`,
        description: `${record.name} at entry ${lsn}, ${timeText(wallTimeMs)}, read-only`,
        hold,
        source: await hold.source(),
        changes: async (since) => {
          const from = await history.resolve(parsePoint(since));
          return await history.changes(from.lsn, lsn);
        },
      });
    } catch (cause) {
      hold.release();
      throw cause;
    }
  }

  /** What clients read from now. */
  inUse(): ReturnType<PointSources["inUse"]> {
    return this.#points.inUse();
  }

  async close(): Promise<void> {
    await this.#points.close();
  }
}
