/*
 * Extents that are being evicted: still local, remote once a checkpoint has said so, unless somebody writes to them before.
 * Owned by image-extents.ts; see the state "evicting" in docs/specs/residency.md.
 */
import { VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { RemotePoint } from "#shared/ports/replica-residency.ts";

export class LeavingExtents {
  readonly points = new Map<number, RemotePoint>();
  /** Counts changes: part of what a checkpoint is compared with. */
  revision = 0;

  begin(extents: readonly number[], point: RemotePoint): void {
    for (const extent of extents) this.points.set(extent, point);
    this.revision += 1;
  }

  /** The eviction is off. */
  stay(extent: number): void {
    if (this.points.delete(extent)) this.revision += 1;
  }

  /** Bytes [start, end) changed. */
  changed(start: number, end: number): void {
    if (this.points.size === 0) return;
    const first = Math.floor(start / limits.extentBytes);
    for (const extent of this.points.keys()) {
      if (extent >= first && extent * limits.extentBytes < end) this.stay(extent);
    }
  }

  /** Whether the extent is still on its way to `point`; if so it has left now. */
  leave(extent: number, point: RemotePoint): boolean {
    return this.points.get(extent) === point && this.points.delete(extent);
  }

  stayAll(): void {
    for (const extent of this.points.keys()) this.stay(extent);
  }
}

/** Extents are read from the volume itself, at a point that is not before the base which holds them. */
export function requireOwnPoint({ volumeId, lsn }: RemotePoint, ownId: string, baseLsn: number): void {
  if (volumeId === ownId && lsn >= baseLsn) return;
  throw new VarveError(
    "EvictPointError",
    "Invalid",
    `extents can't be read from volume id ${volumeId} at LSN ${lsn} when they are given back to a base at LSN ${baseLsn}`,
    {
      hint: "Name a point of the volume itself that is not before the base.",
      fields: { volumeId, lsn, baseLsn },
    },
  );
}
