/*
 * The message bus over core NATS: at most once, no storage. The connection is the process's own (adapters/nats/connect.ts) and comes
 * back by itself; what is sent meanwhile fails or is lost, as the port says. Nothing may be thrown into the client's callbacks: it ends
 * its reading loop, and with it the connection that the process's logs, leases and catalogue go over.
 */
import type { Msg, NatsConnection } from "@nats-io/transport-node";
import type { Handler, MessageBus, Subscription } from "#shared/ports/message-bus.ts";
import { NatsRequests } from "./nats-requests.ts";

export class NatsMessageBus implements MessageBus {
  readonly #connection: NatsConnection;
  readonly #requests: NatsRequests;

  constructor(connection: NatsConnection) {
    this.#connection = connection;
    this.#requests = new NatsRequests(connection);
  }

  publish(subject: string, data: Uint8Array): void {
    if (this.#connection.isClosed()) return;
    try {
      this.#connection.publish(subject, data);
    } catch {
      // Draining or closed meanwhile: nobody would hear it.
    }
  }

  request(subject: string, data: Uint8Array, timeoutMs: number): Promise<Uint8Array> {
    return this.#requests.send(subject, data, timeoutMs);
  }

  subscribe(subject: string, listener: (data: Uint8Array, subject: string) => void): Subscription {
    const subscription = this.#connection.subscribe(subject, {
      callback: (error, message) => {
        if (error !== null) return;
        try {
          listener(message.data, message.subject);
        } catch (cause) {
          queueMicrotask(() => {
            throw cause;
          });
        }
      },
    });
    return { close: () => subscription.unsubscribe() };
  }

  serve(subject: string, handler: Handler): Subscription {
    const subscription = this.#connection.subscribe(subject, {
      callback: (error, message) => {
        if (error !== null) return;
        const answer = answerOf(handler, message.data);
        // Answers of one round of input leave in one write.
        if (answer === null || answer instanceof Uint8Array) this.#respond(message, answer);
        else void this.#respondLater(message, answer);
      },
    });
    return { close: () => subscription.unsubscribe() };
  }

  /** A handler that fails answers nothing, and whoever asked asks elsewhere. */
  async #respondLater(message: Msg, answer: Promise<Uint8Array | null>): Promise<void> {
    this.#respond(message, await answer.catch(() => null));
  }

  #respond(message: Msg, answer: Uint8Array | null): void {
    if (answer === null || this.#connection.isClosed()) return;
    try {
      message.respond(answer);
    } catch {
      // Closed meanwhile.
    }
  }
}

function answerOf(handler: Handler, data: Uint8Array): ReturnType<Handler> {
  try {
    return handler(data);
  } catch {
    return null;
  }
}
