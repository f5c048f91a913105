/*
 * What NBD clients may attach to: volumes by name, and their points as `VOLUME@POINT` (docs/specs/points.md §2). The port
 * between the NBD server and the volumes of volume-host.ts.
 */
import type { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import { timeText } from "#shared/domain/wall-time.ts";
import type { BlockExport, ExportDirectory } from "#shared/ports/block-export.ts";
import type { HostedVolume } from "./hosted-volume.ts";

export class VolumeExports implements ExportDirectory {
  private readonly volumes: ReadonlyMap<string, HostedVolume>;
  private readonly refusal: (name: string) => VarveError | null;

  /** `refusal`: why a volume that is not among them can't be attached to, though it is here. */
  constructor(
    volumes: ReadonlyMap<string, HostedVolume>,
    refusal: (name: string) => VarveError | null = () => null,
  ) {
    this.volumes = volumes;
    this.refusal = refusal;
  }

  /** Volumes with their snapshots behind them; other points are not listed, there is one for every moment. */
  list(): readonly { readonly name: string; readonly description: string }[] {
    let snapshotsLeft = limits.listedSnapshotsMax;
    return [...this.volumes.values()]
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .flatMap(({ name, description, past }) => {
        // The newest are the ones that people look for.
        const shown = snapshotsLeft > 0 ? past.snapshots().slice(-snapshotsLeft) : [];
        snapshotsLeft -= shown.length;
        const points = shown.map((snapshot) => ({
          name: `${name}@${snapshot.name}`,
          description: `snapshot of ${timeText(snapshot.wallTimeMs)}, read-only`,
        }));
        return [{ name, description }, ...points];
      });
  }

  async open(name: string): Promise<BlockExport | null> {
    const at = name.indexOf("@");
    const of = at === -1 ? name : name.slice(0, at);
    const volume = this.volumes.get(of);
    if (volume === undefined) {
      const refusal = this.refusal(of);
      if (refusal !== null) throw refusal;
      return null;
    }
    return at === -1 ? volume.openExport() : await volume.openPoint(name.slice(at + 1));
  }
}
