/*
 * Requests of one process over core NATS, all answered on one inbox. The client's own request() makes an error with its stack and three
 * promises for each, which for small reads is as much work as all the rest. Owned by nats.ts.
 */
import { createInbox, type Msg, type NatsConnection } from "@nats-io/transport-node";
import { VarveError } from "#shared/domain/errors.ts";

interface Asked {
  readonly subject: string;
  readonly resolve: (data: Uint8Array) => void;
  readonly reject: (error: VarveError) => void;
  readonly timer: NodeJS.Timeout;
}

/** What a server answers where nobody listens. */
const nobodyCode = 503;

export class NatsRequests {
  readonly #connection: NatsConnection;
  readonly #asked = new Map<string, Asked>();
  #inbox: string | null = null;
  #count = 0;

  constructor(connection: NatsConnection) {
    this.#connection = connection;
  }

  /** See MessageBus.request. */
  send(subject: string, data: Uint8Array, timeoutMs: number): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      const token = String(++this.#count);
      const reply = `${this.#listen()}${token}`;
      const timer = setTimeout(
        () => this.#take(token)?.reject(failed("BusNoAnswer", subject, `no answer from ${subject}`)),
        timeoutMs,
      );
      this.#asked.set(token, { subject, resolve, reject, timer });
      try {
        this.#connection.publish(subject, data, { reply });
      } catch (cause) {
        this.#take(token)?.reject(failed("BusAway", subject, `NATS: ${String(cause)}`, cause));
      }
    });
  }

  /** With the first request. */
  #listen(): string {
    if (this.#inbox !== null || this.#connection.isClosed()) return this.#inbox ?? "closed.";
    this.#inbox = `${createInbox()}.`;
    this.#connection.subscribe(`${this.#inbox}*`, {
      callback: (error, message) => {
        if (error === null) this.#hear(message);
      },
    });
    void this.#connection.closed().then(() => {
      for (const [token, { subject, reject }] of this.#asked) {
        this.#take(token);
        reject(failed("BusAway", subject, "NATS: the connection is closed"));
      }
    });
    return this.#inbox;
  }

  #hear({ subject: reply, data, headers }: Msg): void {
    const asked = this.#take(reply.slice(this.#inbox?.length ?? 0));
    if (asked === null) return;
    const { subject, resolve, reject } = asked;
    if (data.length === 0 && headers?.code === nobodyCode) {
      reject(failed("BusNobody", subject, `nobody serves ${subject}`));
    } else resolve(data);
  }

  #take(token: string): Asked | null {
    const asked = this.#asked.get(token);
    if (asked === undefined) return null;
    this.#asked.delete(token);
    clearTimeout(asked.timer);
    return asked;
  }
}

function failed(tag: string, subject: string, what: string, cause?: unknown): VarveError {
  return new VarveError(tag, "Retry", what, {
    hint: "Look whether that process and the NATS servers run: varve node list.",
    fields: { subject },
    cause,
  });
}
