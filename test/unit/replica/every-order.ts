// Runs a piece of concurrent work in every order that its steps can be carried out in: each step of the simulated disk and
// each answer of a memory point is a choice, and the choices are enumerated. A crash may be one of them, at every step.

/** Enumerates sequences of choices: the first run takes the first of each, and so on until all were taken. */
class Choices {
  readonly #taken: { choice: number; of: number }[] = [];
  #at = 0;

  pick(of: number): number {
    const known = this.#taken[this.#at];
    if (known === undefined) this.#taken.push({ choice: 0, of });
    else if (known.of !== of) throw new Error("the work is not the same each time");
    this.#at += 1;
    return known?.choice ?? 0;
  }

  /** False when every sequence was taken. */
  next(): boolean {
    this.#at = 0;
    for (;;) {
      const last = this.#taken[this.#taken.length - 1];
      if (last === undefined) return false;
      if (last.choice + 1 < last.of) {
        last.choice += 1;
        return true;
      }
      this.#taken.pop();
    }
  }

  get text(): string {
    return this.#taken.map(({ choice, of }) => `${choice}/${of}`).join(" ");
  }
}

/** Steps that wait to be carried out. */
export class Steps {
  waiting: (() => void)[] = [];
  readonly schedule = (step: () => void): void => {
    this.waiting.push(step);
  };

  /** Carries out everything in the order in which it came, until `work` settles. */
  async inOrder<T>(work: Promise<T>): Promise<T> {
    let done = false;
    const watched = work.finally(() => (done = true));
    watched.catch(() => undefined);
    for (;;) {
      await settled();
      if (done) return watched;
      const step = this.waiting.shift();
      if (step === undefined) throw new Error("stuck: the work waits for nothing that is to come");
      step();
    }
  }
}

export interface OrderedRun {
  readonly steps: Steps;
  /** Begins the concurrent work; resolves when it is all done. */
  readonly work: () => Promise<unknown>;
  /** After all of it, or after a crash in the middle of it. */
  readonly check: (crashed: boolean) => Promise<void>;
  readonly crash: (() => void) | null;
}

/** Returns how many orders there were. */
export async function inEveryOrder(prepare: (run: number) => Promise<OrderedRun>): Promise<number> {
  const choices = new Choices();
  let runs = 0;
  do {
    const run = await prepare(runs);
    runs += 1;
    try {
      const crashed = await carryOut(run, choices);
      await run.check(crashed);
    } catch (cause) {
      throw new Error(`order ${runs}: ${choices.text}`, { cause });
    }
  } while (choices.next());
  return runs;
}

async function carryOut({ steps, work, crash }: OrderedRun, choices: Choices): Promise<boolean> {
  let done = false;
  const watched = work().finally(() => (done = true));
  watched.catch(() => undefined);
  for (;;) {
    await settled();
    if (done) {
      await watched;
      return false;
    }
    const count = steps.waiting.length;
    if (count === 0) throw new Error("stuck: the work waits for nothing that is to come");
    const choice = choices.pick(count + (crash === null ? 0 : 1));
    if (choice === count) {
      steps.waiting.length = 0;
      crash?.();
      return true;
    }
    const [step] = steps.waiting.splice(choice, 1);
    step?.();
  }
}

function settled(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
