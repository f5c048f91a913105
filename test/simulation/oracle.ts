/*
 * The prefix oracle of the simulator: a plain byte array with history. It knows every operation in the order in which the
 * volume took it, which of them were promised, and says whether a disk's content is the fold of a prefix that is long enough.
 * Called by world.ts; knows nothing of Varve's code, so that it can't share its mistakes.
 */

type Bytes = Uint8Array<ArrayBuffer>;

export type OracleOperation =
  | { readonly kind: "write"; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: "zero"; readonly offset: number; readonly length: number }
  | { readonly kind: "resize"; readonly sizeBytes: number };

export interface PrefixVerdict {
  /** Number of operations whose fold the content is, or -1 where no allowed prefix fits. */
  readonly prefix: number;
  readonly why: string;
}

export class PrefixOracle {
  /** Content after the first `settled` operations: everything up to a checked restart. */
  private base: Bytes;
  private operations: OracleOperation[] = [];
  /** Operations [0, promised) must survive. */
  private promised = 0;
  /** Operations [0, acknowledged) were answered: reads see at least these. */
  private acknowledged = 0;
  private acknowledgedFlags: boolean[] = [];

  constructor(sizeBytes: number) {
    this.base = new Uint8Array(sizeBytes);
  }

  /** Takes an operation in the volume's order; returns its number. */
  submit(operation: OracleOperation): number {
    this.operations.push(operation);
    this.acknowledgedFlags.push(false);
    return this.operations.length - 1;
  }

  /** The operation was answered with success. */
  acknowledge(index: number): void {
    this.acknowledgedFlags[index] = true;
    while (this.acknowledgedFlags[this.acknowledged] === true) this.acknowledged += 1;
  }

  /** Answered operations so far without a gap; what a FLUSH that starts now will cover is every answered one. */
  get lastAnswered(): number {
    return this.acknowledgedFlags.lastIndexOf(true);
  }

  get submitted(): number {
    return this.operations.length;
  }

  get acknowledgedPrefix(): number {
    return this.acknowledged;
  }

  /** Operation `index` and all before it must survive from now on. */
  promise(index: number): void {
    this.promised = Math.max(this.promised, index + 1);
  }

  /** A kill of the process alone: everything answered must survive. */
  promiseAllAnswered(): void {
    this.promise(this.lastAnswered);
  }

  /** Says which prefix the content is. The longest one is taken: operations beyond it are lost for good. */
  judge(content: Uint8Array): PrefixVerdict {
    let found = -1;
    let state: Bytes = Uint8Array.from(this.base);
    let differing = countDifferences(state, content);
    if (differing === 0 && this.promised === 0) found = 0;
    for (let index = 0; index < this.operations.length; index++) {
      const operation = this.operations[index] as OracleOperation;
      if (operation.kind === "resize") {
        state = resized(state, operation.sizeBytes);
        differing = countDifferences(state, content);
      } else {
        const start = operation.offset;
        const end = start + lengthOf(operation);
        differing -= countDifferences(state.subarray(start, end), content.subarray(start, end));
        applyTo(state, operation);
        differing += countDifferences(state.subarray(start, end), content.subarray(start, end));
      }
      if (differing === 0 && index + 1 >= this.promised) found = index + 1;
    }
    if (found >= 0) return { prefix: found, why: "" };
    return { prefix: -1, why: this.explain(content) };
  }

  /** After a restart: the disk is the first `prefix` operations; the rest never happened. */
  settle(prefix: number): void {
    for (const operation of this.operations.slice(0, prefix)) {
      if (operation.kind === "resize") this.base = resized(this.base, operation.sizeBytes);
      else applyTo(this.base, operation);
    }
    this.operations = [];
    this.acknowledgedFlags = [];
    this.promised = 0;
    this.acknowledged = 0;
  }

  /**
   * Checks a read: each 512-byte sector part must be what some prefix between `from` (answered when the read came in) and `to`
   * (submitted when it was answered) gives. Returns an explanation, or "" when it is right.
   */
  judgeRead(offset: number, bytes: Uint8Array, from: number, to: number): string {
    const state = Uint8Array.from(this.base.subarray(offset, offset + bytes.length));
    const right = new Uint8Array(bytes.length);
    const mark = (): void => {
      for (let index = 0; index < bytes.length; index++) if (state[index] === bytes[index]) right[index] = 1;
    };
    for (let index = 0; index < from; index++)
      applyPart(state, offset, this.operations[index] as OracleOperation);
    mark();
    for (let index = from; index < to; index++) {
      applyPart(state, offset, this.operations[index] as OracleOperation);
      mark();
    }
    const wrong = right.indexOf(0);
    if (wrong < 0) return "";
    return `read at ${offset + wrong}: got ${bytes[wrong]}, which no state between operation ${from} and ${to} has there`;
  }

  /** Current content where nothing is in flight. */
  content(): Uint8Array {
    let state: Bytes = Uint8Array.from(this.base);
    for (const operation of this.operations) {
      if (operation.kind === "resize") state = resized(state, operation.sizeBytes);
      else applyTo(state, operation);
    }
    return state;
  }

  private explain(content: Uint8Array): string {
    let state: Bytes = Uint8Array.from(this.base);
    for (const operation of this.operations.slice(0, this.promised)) {
      if (operation.kind === "resize") state = resized(state, operation.sizeBytes);
      else applyTo(state, operation);
    }
    const at = state.findIndex((byte, index) => byte !== content[index]);
    return (
      `no prefix of ${this.operations.length} operations with at least ${this.promised} gives this content; ` +
      `against the promised prefix, ${countDifferences(state, content)} bytes differ, the first at ${at}: ` +
      `expected ${state[at]}, found ${content[at]}`
    );
  }
}

function lengthOf(operation: OracleOperation): number {
  if (operation.kind === "write") return operation.bytes.length;
  return operation.kind === "zero" ? operation.length : 0;
}

function applyTo(state: Uint8Array, operation: OracleOperation): void {
  if (operation.kind === "write") state.set(operation.bytes, operation.offset);
  else if (operation.kind === "zero") state.fill(0, operation.offset, operation.offset + operation.length);
}

function applyPart(part: Uint8Array, partOffset: number, operation: OracleOperation): void {
  if (operation.kind === "resize") return;
  const start = Math.max(operation.offset, partOffset);
  const end = Math.min(operation.offset + lengthOf(operation), partOffset + part.length);
  if (start >= end) return;
  if (operation.kind === "write") {
    part.set(operation.bytes.subarray(start - operation.offset, end - operation.offset), start - partOffset);
  } else {
    part.fill(0, start - partOffset, end - partOffset);
  }
}

function resized(state: Uint8Array, sizeBytes: number): Bytes {
  const next = new Uint8Array(sizeBytes);
  next.set(state.subarray(0, Math.min(sizeBytes, state.length)));
  return next;
}

function countDifferences(one: Uint8Array, other: Uint8Array): number {
  let count = Math.abs(one.length - other.length);
  const length = Math.min(one.length, other.length);
  for (let index = 0; index < length; index++) if (one[index] !== other[index]) count += 1;
  return count;
}
