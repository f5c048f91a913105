/*
 * Finds the name that somebody probably meant. command-line.ts calls it for unknown commands and flags, the volume
 * commands for unknown volumes. Edit distance with a swap counted once; a guess too far away is worse than none.
 */

/** Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`. */
export function editDistance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, column) => column)];
  const at = (row: number, column: number): number => rows[row]?.[column] ?? 0;
  for (let row = 1; row <= a.length; row++) {
    const line = [row];
    rows.push(line);
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1] ? 0 : 1;
      let least = Math.min(
        at(row - 1, column) + 1,
        (line[column - 1] ?? 0) + 1,
        at(row - 1, column - 1) + same,
      );
      const swapped = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      if (swapped) least = Math.min(least, at(row - 2, column - 2) + 1);
      line.push(least);
    }
  }
  return at(a.length, b.length);
}

/**
 * The candidate that `text` begins, or the nearest one: at most a third of its letters differ (one in short words, two
 * from five letters on). Null where none is near.
 */
export function nearest(text: string, candidates: Iterable<string>): string | null {
  const all = [...candidates];
  const begun = text.length >= 2 ? all.filter((candidate) => candidate.startsWith(text.toLowerCase())) : [];
  if (begun.length === 1) return begun[0] ?? null;
  let best: string | null = null;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const candidate of all) {
    const distance = editDistance(text.toLowerCase(), candidate.toLowerCase());
    if (distance >= bestDistance) continue;
    bestDistance = distance;
    best = candidate;
  }
  const longest = Math.max(text.length, best?.length ?? 0);
  const allowed = longest >= 5 ? Math.max(2, Math.floor(longest / 3)) : 1;
  return bestDistance <= allowed ? best : null;
}
