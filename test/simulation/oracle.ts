/*
 * The prefix oracle of the simulator: a plain byte array with history. It knows every operation in the order in which the
 * volume took it, which of them were answered and which promised, and says whether a disk's content is the fold of a prefix
 * that is long enough, and whether a read saw what it had to see and nothing that may still fail.
 * Called by life.ts and client.ts; knows nothing of Varve's code, so that it can't share its mistakes.
 */

export type Bytes = Uint8Array<ArrayBuffer>;

export type OracleOperation =
  | { readonly kind: "write"; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: "zero"; readonly offset: number; readonly length: number }
  | { readonly kind: "resize"; readonly sizeBytes: number }
  /** Takes a place in the order and changes nothing: a mark, or an operation that was refused. */
  | { readonly kind: "nothing" };

export interface PrefixVerdict {
  /** Number of operations whose fold the content is, or -1 where no allowed prefix fits. */
  readonly prefix: number;
  readonly why: string;
}

export class PrefixOracle {
  /** Content at the last checked restart; `operations` came since. */
  private base: Bytes;
  private operations: OracleOperation[] = [];
  private answered: boolean[] = [];
  private answeredEnd = 0;
  /** The fold of the first `readyEnd` operations, because most reads ask for it. */
  private ready: Bytes | null = null;
  private readyEnd = 0;
  private promisedEnd = 0;

  /** Begins with zeroes, or with `base`, which it takes over. */
  constructor(sizeBytes: number, base: Bytes = new Uint8Array(sizeBytes)) {
    this.base = base;
  }

  /** Takes an operation in the volume's order; returns its number. */
  submit(operation: OracleOperation): number {
    this.operations.push(operation);
    this.answered.push(false);
    return this.operations.length - 1;
  }

  /** Operation `index` was answered with success: reads that come in from now on see it and all before it. */
  acknowledge(index: number): void {
    this.answered[index] = true;
    this.answeredEnd = Math.max(this.answeredEnd, index + 1);
  }

  /** Operation `index` was refused before it was taken: it never happens. */
  refuse(index: number): void {
    if (this.answered[index] === true) throw new Error(`operation ${index} was answered and then refused`);
    this.operations[index] = { kind: "nothing" };
    if (index < this.readyEnd) this.ready = null;
  }

  get submitted(): number {
    return this.operations.length;
  }

  /** End of the shortest prefix that holds every answered operation. */
  get answeredPrefix(): number {
    return this.answeredEnd;
  }

  /** End of the shortest prefix that a power loss must leave. */
  get promisedPrefix(): number {
    return this.promisedEnd;
  }

  /** The first `end` operations survive a power loss from now on. */
  promise(end: number): void {
    this.promisedEnd = Math.max(this.promisedEnd, end);
  }

  /**
   * Says which prefix of at least `required` operations the content is. The longest one is taken: operations beyond it
   * are lost for good.
   */
  judge(content: Uint8Array, required: number): PrefixVerdict {
    let state = this.contentAfter(required);
    let differing = countDifferences(state, content);
    let found = differing === 0 ? required : -1;
    for (let index = required; index < this.operations.length; index++) {
      const operation = this.operations[index] as OracleOperation;
      if (operation.kind === "resize") {
        state = resized(state, operation.sizeBytes);
        differing = countDifferences(state, content);
      } else if (operation.kind !== "nothing") {
        const start = operation.offset;
        const end = start + lengthOf(operation);
        differing -= countDifferences(state.subarray(start, end), content.subarray(start, end));
        applyTo(state, operation);
        differing += countDifferences(state.subarray(start, end), content.subarray(start, end));
      }
      if (differing === 0) found = index + 1;
    }
    if (found >= 0) return { prefix: found, why: "" };
    return { prefix: -1, why: this.explain(content, required) };
  }

  /** After a checked restart: the disk is the first `prefix` operations; the rest never happened. */
  settle(prefix: number): void {
    this.base = this.contentAfter(prefix);
    this.operations = [];
    this.ready = null;
    this.answered = [];
    this.answeredEnd = 0;
    this.promisedEnd = 0;
  }

  /**
   * Checks a read: each byte must be what some prefix between `from` (answered when the read came in) and `to` gives there.
   * Returns an explanation, or "" where it is right. Bytes behind the disk's end are zero.
   */
  judgeRead(offset: number, bytes: Uint8Array, from: number, to: number): string {
    const state = new Uint8Array(bytes.length);
    const before = this.readyAt(from);
    state.set(before.subarray(Math.min(offset, before.length), offset + bytes.length));
    const right = new Uint8Array(bytes.length);
    markEqual(right, state, bytes, 0, bytes.length);
    for (let index = from; index < to; index++) {
      const touched = applyPart(state, offset, this.operations[index] as OracleOperation);
      if (touched !== null) markEqual(right, state, bytes, touched.start, touched.end);
    }
    const wrong = right.indexOf(0);
    if (wrong < 0) return "";
    return `at ${offset + wrong} stands ${bytes[wrong]}, which no state between operations ${from} and ${to} has there (the last has ${state[wrong]})`;
  }

  /** The fold of the first `end` operations. */
  contentAfter(end: number): Bytes {
    let state: Bytes = this.base.slice();
    for (const operation of this.operations.slice(0, end)) {
      if (operation.kind === "resize") state = resized(state, operation.sizeBytes);
      else applyTo(state, operation);
    }
    return state;
  }

  private readyAt(end: number): Bytes {
    if (this.ready === null || this.readyEnd > end) {
      this.ready = this.contentAfter(end);
    } else {
      for (let index = this.readyEnd; index < end; index++) {
        const operation = this.operations[index] as OracleOperation;
        if (operation.kind === "resize") this.ready = resized(this.ready, operation.sizeBytes);
        else applyTo(this.ready, operation);
      }
    }
    this.readyEnd = end;
    return this.ready;
  }

  private explain(content: Uint8Array, required: number): string {
    const state = this.contentAfter(required);
    const at = state.findIndex((byte, index) => byte !== content[index]);
    return (
      `no prefix of ${this.operations.length} operations with at least ${required} gives this content; against the ` +
      `required prefix ${countDifferences(state, content)} bytes differ, the first at ${at}: expected ${state[at]}, ` +
      `found ${content[at]} (sizes ${state.length} and ${content.length}); last toucher ${this.lastToucher(at)}`
    );
  }

  private lastToucher(at: number): string {
    for (let index = this.operations.length - 1; index >= 0; index--) {
      const operation = this.operations[index] as OracleOperation;
      if (operation.kind === "resize" || operation.kind === "nothing") continue;
      if (operation.offset <= at && at < operation.offset + lengthOf(operation)) {
        return `${operation.kind} #${index} at ${operation.offset} length ${lengthOf(operation)}`;
      }
    }
    return "none since the last restart";
  }
}

export function lengthOf(operation: OracleOperation): number {
  if (operation.kind === "write") return operation.bytes.length;
  return operation.kind === "zero" ? operation.length : 0;
}

/** Like the product, nothing grows a disk but a resize: what reaches behind its end is cut off. */
export function applyTo(state: Uint8Array, operation: OracleOperation): void {
  if (operation.kind === "write") {
    if (operation.offset >= state.length) return;
    state.set(operation.bytes.subarray(0, state.length - operation.offset), operation.offset);
  } else if (operation.kind === "zero") {
    state.fill(0, operation.offset, operation.offset + operation.length);
  }
}

/** Applies to the part of the disk that starts at partOffset; says which of its bytes may have changed. */
export function applyPart(
  part: Uint8Array,
  partOffset: number,
  operation: OracleOperation,
): { readonly start: number; readonly end: number } | null {
  if (operation.kind === "nothing") return null;
  if (operation.kind === "resize") {
    const start = Math.max(0, operation.sizeBytes - partOffset);
    if (start >= part.length) return null;
    part.fill(0, start);
    return { start, end: part.length };
  }
  const start = Math.max(operation.offset, partOffset);
  const end = Math.min(operation.offset + lengthOf(operation), partOffset + part.length);
  if (start >= end) return null;
  if (operation.kind === "write") {
    part.set(operation.bytes.subarray(start - operation.offset, end - operation.offset), start - partOffset);
  } else {
    part.fill(0, start - partOffset, end - partOffset);
  }
  return { start: start - partOffset, end: end - partOffset };
}

function markEqual(right: Uint8Array, one: Uint8Array, other: Uint8Array, start: number, end: number): void {
  for (let index = start; index < end; index++) if (one[index] === other[index]) right[index] = 1;
}

export function resized(state: Uint8Array, sizeBytes: number): Bytes {
  const next = new Uint8Array(sizeBytes);
  next.set(state.subarray(0, Math.min(sizeBytes, state.length)));
  return next;
}

function countDifferences(one: Uint8Array, other: Uint8Array): number {
  let count = Math.abs(one.length - other.length);
  const length = Math.min(one.length, other.length);
  for (let start = 0; start < length; start += 4096) {
    const end = Math.min(start + 4096, length);
    if (Buffer.compare(one.subarray(start, end), other.subarray(start, end)) === 0) continue;
    for (let index = start; index < end; index++) if (one[index] !== other[index]) count += 1;
  }
  return count;
}
