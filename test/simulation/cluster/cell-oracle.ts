/*
 * What every cell of the disk may show: which writes were issued, which were acknowledged or shown, by a gateway of which epoch. Judges
 * every read. Knows nothing of Varve. Fed by cluster-gateway.ts, where answers leave, and by the clients.
 */

interface Seen {
  readonly epoch: number;
  readonly serial: number;
}

const freshMax = 48;

export type ChangeKind = "write" | "trim";

export class CellOracle {
  private readonly issued: ChangeKind[][];
  private readonly seen: Seen[][];
  /** Where the newest changes were seen last. */
  private readonly fresh: number[] = [];

  constructor(cells: number) {
    this.issued = Array.from({ length: cells }, () => []);
    this.seen = Array.from({ length: cells }, () => []);
  }

  get cells(): number {
    return this.issued.length;
  }

  /** The serial of a change that is about to be sent. */
  issue(cell: number, kind: ChangeKind): number {
    const changes = this.issued[cell] ?? [];
    changes.push(kind);
    return changes.length;
  }

  /** A gateway of that epoch acknowledged the change, or showed it: from now on it and newer ones show nothing older. */
  saw(epoch: number, cell: number, serial: number): void {
    if (serial <= this.floor(epoch, cell)) return;
    this.seen[cell]?.push({ epoch, serial });
    this.fresh.push(cell);
    if (this.fresh.length > freshMax) this.fresh.shift();
  }

  /** Cells of which something new was seen a moment ago: who is behind shows it there first. */
  freshCells(): readonly number[] {
    return this.fresh;
  }

  /** The oldest serial that a gateway of that epoch may show. */
  floor(epoch: number, cell: number): number {
    let floor = 0;
    for (const one of this.seen[cell] ?? []) if (one.epoch <= epoch) floor = Math.max(floor, one.serial);
    return floor;
  }

  /** Whether a gateway of a newer epoch acknowledged or showed anything. */
  isReplaced(epoch: number): boolean {
    return this.seen.some((ofCell) => ofCell.some((one) => one.epoch > epoch));
  }

  /** Why the cell may not show that; null: it may. */
  judge(cell: number, found: number | string, floor: number): string | null {
    if (typeof found === "string") return found;
    const changes = this.issued[cell] ?? [];
    if (found === 0) {
      const trimmed = changes.some((kind, index) => kind === "trim" && index + 1 >= floor);
      return floor === 0 || trimmed ? null : `cell ${cell} is zero, serial ${floor} was seen`;
    }
    if (changes[found - 1] !== "write") return `cell ${cell} shows serial ${found}, which was no write`;
    return found >= floor ? null : `cell ${cell} shows serial ${found}, serial ${floor} was seen before`;
  }
}
