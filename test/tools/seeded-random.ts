// A small seeded random source for tests that must be replayable: the same seed gives the same choices.
// Callers: block-checker.ts, crash rounds, soak. No security, no quality beyond "spread well".

export class SeededRandom {
  private state: number;

  constructor(seed: number) {
    this.state = seed >>> 0;
  }

  /** A 32-bit unsigned integer (mulberry32). */
  uint32(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let word = this.state;
    word = Math.imul(word ^ (word >>> 15), word | 1);
    word ^= word + Math.imul(word ^ (word >>> 7), word | 61);
    return (word ^ (word >>> 14)) >>> 0;
  }

  /** In [0, 1). */
  fraction(): number {
    return this.uint32() / 0x1_0000_0000;
  }

  /** One of them, each as likely. */
  pick<T>(among: readonly T[]): T {
    const one = among[this.between(0, among.length)];
    if (one === undefined) throw new Error("nothing to pick from");
    return one;
  }

  /** An integer in [from, to). */
  between(from: number, to: number): number {
    return from + Math.floor(this.fraction() * (to - from));
  }

  /** In [from, to), each power of two about equally likely: sizes from small to large. */
  logUniform(from: number, to: number): number {
    return Math.floor(from * (to / from) ** this.fraction());
  }

  chance(probability: number): boolean {
    return this.fraction() < probability;
  }

  /** One of the choices by weight. */
  weighted<T extends string>(weights: Readonly<Record<T, number>>): T {
    const entries = Object.entries(weights) as [T, number][];
    let left = this.fraction() * entries.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [name, weight] of entries) {
      left -= weight;
      if (left < 0) return name;
    }
    return (entries[0] as [T, number])[0];
  }

  /** An independent source, so that one consumer's draws don't shift another's. */
  fork(): SeededRandom {
    return new SeededRandom(this.uint32());
  }
}
