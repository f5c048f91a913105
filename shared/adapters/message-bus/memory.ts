/*
 * The message bus in memory: the twin of nats.ts for unit tests. Several processes of a test share one; `cut` makes one subject's
 * messages get lost, both ways, as a broken network does.
 */
import { VarveError } from "#shared/domain/errors.ts";
import { largeMessageBytes, messageMemory } from "#shared/memory/message-memory.ts";
import type { Handler, MessageBus, Subscription } from "#shared/ports/message-bus.ts";

type Listener = (data: Uint8Array, subject: string) => void;

export class MemoryMessageBus implements MessageBus {
  /** Messages on subjects for which it is true are lost. */
  cut: (subject: string) => boolean = () => false;
  readonly #listeners = new Set<{ readonly pattern: RegExp; readonly listener: Listener }>();
  readonly #handlers = new Map<string, Handler>();

  publish(subject: string, data: Uint8Array): void {
    const copy = Uint8Array.from(data);
    queueMicrotask(() => {
      if (this.cut(subject)) return;
      for (const { pattern, listener } of this.#listeners) {
        if (pattern.test(subject)) listener(copy, subject);
      }
    });
  }

  async request(subject: string, data: Uint8Array, timeoutMs: number): Promise<Uint8Array> {
    const handler = this.#handlers.get(subject);
    if (handler === undefined) throw failed("BusNobody", `nobody serves ${subject}`);
    const answer = this.cut(subject)
      ? null
      : await within(
          (async () => handler(Uint8Array.from(data)))().catch(() => null),
          timeoutMs,
        );
    if (answer === null) throw failed("BusNoAnswer", `no answer from ${subject}`);
    return asReceived(answer);
  }

  subscribe(subject: string, listener: Listener): Subscription {
    const parts = subject.split(".").map((part) => (part === "*" ? "[^.]+" : part));
    const one = { pattern: new RegExp(`^${parts.join("\\.")}$`), listener };
    this.#listeners.add(one);
    return { close: () => void this.#listeners.delete(one) };
  }

  serve(subject: string, handler: Handler): Subscription {
    this.#handlers.set(subject, handler);
    return {
      close: () => {
        if (this.#handlers.get(subject) === handler) this.#handlers.delete(subject);
      },
    };
  }
}

/** As a connection does it: memory to be sent goes back, what still reads or writes it is found out; a large message comes in memory that is lent. */
export function asReceived(answer: Uint8Array): Uint8Array {
  const { length } = answer;
  const copy = length < largeMessageBytes ? new Uint8Array(length) : messageMemory.take(length);
  copy.set(answer);
  if (messageMemory.isToSend(answer)) {
    answer.fill(0xdb);
    messageMemory.giveBack(answer);
  }
  return copy;
}

async function within<T>(work: Promise<T>, timeoutMs: number): Promise<T | null> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(resolve, timeoutMs, null);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

function failed(tag: string, message: string): VarveError {
  return new VarveError(tag, "Retry", message);
}
