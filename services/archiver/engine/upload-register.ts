/*
 * Keys that this process uploads or has uploaded and that no published manifest names yet. The collector of the same process
 * takes them for named (docs/specs/retention.md). Shared by all volumes' archivers.
 */
export class UploadRegister {
  /** How often each key is under way: two bases may want the same chunk. */
  private readonly counts = new Map<string, number>();

  begin(key: string): void {
    this.counts.set(key, (this.counts.get(key) ?? 0) + 1);
  }

  /** A manifest names it now, or it was given up. */
  end(key: string): void {
    const count = (this.counts.get(key) ?? 0) - 1;
    if (count > 0) this.counts.set(key, count);
    else this.counts.delete(key);
  }

  keys(): Iterable<string> {
    return this.counts.keys();
  }
}
