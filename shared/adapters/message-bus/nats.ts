/*
 * The message bus over core NATS: at most once, no storage. The connection is the process's own (adapters/nats/connect.ts) and comes
 * back by itself; what is sent meanwhile fails or is lost, as the port says.
 */
import { errors, type Msg, type NatsConnection } from "@nats-io/transport-node";
import { VarveError } from "#shared/domain/errors.ts";
import type { MessageBus, Subscription } from "#shared/ports/message-bus.ts";

export class NatsMessageBus implements MessageBus {
  readonly #connection: NatsConnection;

  constructor(connection: NatsConnection) {
    this.#connection = connection;
  }

  publish(subject: string, data: Uint8Array): void {
    if (this.#connection.isClosed()) return;
    try {
      this.#connection.publish(subject, data);
    } catch {
      // Draining or closed meanwhile: nobody would hear it.
    }
  }

  async request(subject: string, data: Uint8Array, timeoutMs: number): Promise<Uint8Array> {
    try {
      const answer = await this.#connection.request(subject, data, { timeout: timeoutMs });
      return answer.data;
    } catch (cause) {
      throw requestError(subject, cause);
    }
  }

  subscribe(subject: string, listener: (data: Uint8Array, subject: string) => void): Subscription {
    const subscription = this.#connection.subscribe(subject, {
      callback: (error, message) => {
        if (error === null) listener(message.data, message.subject);
      },
    });
    return { close: () => subscription.unsubscribe() };
  }

  serve(subject: string, handler: (data: Uint8Array) => Promise<Uint8Array | null>): Subscription {
    const subscription = this.#connection.subscribe(subject, {
      callback: (error, message) => {
        if (error === null) void this.#answer(message, handler);
      },
    });
    return { close: () => subscription.unsubscribe() };
  }

  /** A handler that fails answers nothing, and whoever asked asks elsewhere. */
  async #answer(message: Msg, handler: (data: Uint8Array) => Promise<Uint8Array | null>): Promise<void> {
    const answer = await handler(message.data).catch(() => null);
    if (answer === null || this.#connection.isClosed()) return;
    try {
      message.respond(answer);
    } catch {
      // Closed meanwhile.
    }
  }
}

function requestError(subject: string, cause: unknown): VarveError {
  const nobody =
    cause instanceof errors.NoRespondersError ||
    (cause instanceof errors.RequestError && cause.isNoResponders());
  const late = cause instanceof errors.TimeoutError;
  const tag = nobody ? "BusNobody" : late ? "BusNoAnswer" : "BusAway";
  const what = nobody
    ? `nobody serves ${subject}`
    : late
      ? `no answer from ${subject}`
      : `NATS: ${String(cause)}`;
  return new VarveError(tag, "Retry", what, {
    hint: "Look whether that process and the NATS servers run: varve node list.",
    fields: { subject },
    cause,
  });
}
