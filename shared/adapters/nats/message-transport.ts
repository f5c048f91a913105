/*
 * The NATS client's own transport with changes for large messages, which are all of a log's bytes: they are received in one piece
 * into memory that is used again (message-intake.ts), and sent from where they lie instead of being copied behind their line. Memory of
 * answers is used again when they were sent. A connection with TLS receives as the client library does, and so does one where a part of the
 * client is not as expected (client-internals.ts). Used by connect.ts; docs/adr/010-jetstream-log.md says what that is worth.
 */
import { Socket } from "node:net";
import type { ConnectionOptions, NatsConnection } from "@nats-io/transport-node";
import { NatsConnectionImpl, setTransportFactory } from "@nats-io/transport-node";
import { NodeTransport, nodeResolveHost } from "@nats-io/transport-node/lib/node_transport.js";
import { largeMessageBytes, messageMemory } from "#shared/memory/message-memory.ts";
import { missingInternals, receivingInternals, sendingInternals } from "./client-internals.ts";
import { MessageIntake } from "./message-intake.ts";

class MessageTransport extends NodeTransport {
  override setupHandlers(): void {
    const canReceive = missingInternals(this, receivingInternals).length === 0;
    const plain = this.isEncrypted() || !canReceive ? null : this.#receiving();
    super.setupHandlers();
    plain?.resume();
  }

  /** Sent as one, in order, without being joined. */
  sendParts(parts: readonly Uint8Array[]): void {
    const { socket } = this;
    if (this.isClosed || socket === undefined) return;
    socket.cork();
    for (const part of parts) {
      if (messageMemory.isToSend(part)) socket.write(part, (error) => this.#sent(part, error));
      else this.send(part);
    }
    socket.uncork();
  }

  /** What a connection that ended may still hold is left to the collector. */
  #sent(part: Uint8Array, error: Error | null | undefined): void {
    if (error === null || error === undefined) messageMemory.giveBack(part);
  }

  /** The handle moves to a socket that reads into our memory; the first wrapper is an empty shell from here on. */
  #receiving(): Socket {
    const inner = this.socket as Socket & { _handle: unknown };
    const handle = inner._handle;
    inner._handle = null;
    const intake = new MessageIntake(messageMemory, (bytes) => {
      this.yields.push(bytes);
      this.signal.resolve();
    });
    const onread = {
      buffer: () => intake.space(),
      callback: (count: number) => {
        intake.landed(count);
        return true;
      },
    };
    this.socket = new Socket({ handle, onread, pauseOnCreate: true } as object);
    return this.socket;
  }
}

/** As connect() of @nats-io/transport-node. */
export async function connectTransport(options: ConnectionOptions): Promise<NatsConnection> {
  setTransportFactory({ factory: () => new MessageTransport(), dnsResolveFn: nodeResolveHost });
  const connection = await NatsConnectionImpl.connect(options);
  sendLargeOnesUnjoined((connection as NatsConnectionImpl).protocol);
  return connection;
}

function sendLargeOnesUnjoined(protocol: NatsConnectionImpl["protocol"]): void {
  if (missingInternals(protocol, sendingInternals).length > 0) return;
  const joined = protocol.sendCommand.bind(protocol);
  protocol.sendCommand = (command, ...payloads) => {
    const { transport } = protocol;
    const isLarge = payloads.some((payload) => payload.length >= largeMessageBytes);
    if (
      !isLarge ||
      !protocol.connected ||
      !protocol.infoReceived ||
      !(transport instanceof MessageTransport)
    ) {
      joined(command, ...payloads);
      return;
    }
    // What was published before goes first.
    if (protocol.outbound.size() > 0) transport.send(protocol.outbound.drain());
    const line = typeof command === "string" ? Buffer.from(command) : command;
    transport.sendParts([line, ...payloads.filter((payload) => payload.length > 0)]);
  };
}
