/*
 * One connection to an export for the kernel: the NBD handshake in Node, then the bare descriptor. The server says nothing after GO
 * until it is asked, so no byte for the kernel is ever read here. Called by attachment.ts (links) and by the commands (a look at the
 * export: size, read-only, durability). Spec: docs/specs/attach.md; bytes: docs/formats/nbd.md.
 */
import { connect, type Socket } from "node:net";
import { VarveError } from "#shared/domain/errors.ts";
import { nbdInfo, nbdOption, nbdOptionReply, nbdTransmissionFlag } from "#shared/formats/nbd-numbers.ts";
import { addressText, type ListenAddress } from "#shared/shell/listen-address.ts";
import { duplicateDescriptor, giveUpOnSilence } from "./netlink-socket.ts";

const handshakeMs = 10_000;
const replyBytesMax = 64 * 1024;
/** A server that vanished without a word is given up after this. */
const silenceSeconds = 4;

export interface ExportFacts {
  readonly sizeBytes: number;
  readonly flags: number;
  readonly readOnly: boolean;
  readonly description: string;
}

export interface ExportLink extends ExportFacts {
  /** Owned by the caller. */
  readonly descriptor: number;
}

/** Size, flags and description of an export, without opening it for good. */
export async function lookAtExport(server: ListenAddress, name: string): Promise<ExportFacts> {
  return await withConnection(server, async (wire) => await wire.negotiate(nbdOption.info, name));
}

/** A connection in its transmission phase. */
export async function openLink(server: ListenAddress, name: string): Promise<ExportLink> {
  return await withConnection(server, async (wire) => {
    const facts = await wire.negotiate(nbdOption.go, name);
    return { ...facts, descriptor: wire.takeDescriptor() };
  });
}

export function serverUnreachable(server: ListenAddress, cause: Error): VarveError {
  const code = (cause as NodeJS.ErrnoException).code;
  const what = code === "ECONNREFUSED" ? "nothing listens there" : cause.message;
  return new VarveError(
    "GatewayUnreachableError",
    "Retry",
    `no NBD server at ${addressText(server)}: ${what}`,
    {
      hint: "Start one (varve up), or say where it is: --server HOST:PORT.",
      fields: { server: addressText(server) },
      cause,
    },
  );
}

async function withConnection<T>(
  server: ListenAddress,
  work: (wire: HandshakeWire) => Promise<T>,
): Promise<T> {
  const socket = connect(
    server.kind === "unix" ? { path: server.path } : { host: server.host, port: server.port },
  );
  const wire = new HandshakeWire(socket, server);
  try {
    return await work(wire);
  } catch (cause) {
    throw cause instanceof VarveError ? cause : serverUnreachable(server, cause as Error);
  } finally {
    wire.end();
  }
}

class HandshakeWire {
  private readonly socket: Socket;
  private readonly server: ListenAddress;
  private held = Buffer.alloc(0);
  private failure: Error | undefined;
  private wake = (): void => {};
  private readonly timer: NodeJS.Timeout;

  constructor(socket: Socket, server: ListenAddress) {
    this.socket = socket;
    this.server = server;
    socket.setNoDelay(true);
    this.timer = setTimeout(() => this.fail(new Error("no answer within 10 s")), handshakeMs);
    socket.on("data", (chunk: Buffer) => {
      this.held = Buffer.concat([this.held, chunk]);
      this.wake();
    });
    socket.on("error", (cause) => this.fail(cause));
    socket.on("close", () => this.fail(new Error("the server closed the connection")));
  }

  async negotiate(option: number, name: string): Promise<ExportFacts> {
    const greeting = await this.take(18);
    if (greeting.toString("latin1", 0, 16) !== "NBDMAGICIHAVEOPT") throw this.noNbd();
    const flags = Buffer.alloc(4);
    flags.writeUInt32BE(3, 0);
    this.socket.write(flags);
    this.sendOption(option, name);
    let sizeBytes: number | undefined;
    let serverFlags = 0;
    let description = "";
    for (;;) {
      const head = await this.take(20);
      const type = head.readUInt32BE(12);
      const length = head.readUInt32BE(16);
      if (length > replyBytesMax) throw this.noNbd();
      const data = await this.take(length);
      if (type === nbdOptionReply.ack) break;
      if (type >= 0x8000_0000) throw refused(this.server, name, type, data.toString("utf8"));
      const kind = data.readUInt16BE(0);
      if (kind === nbdInfo.export) {
        sizeBytes = Number(data.readBigUInt64BE(2));
        serverFlags = data.readUInt16BE(10);
      } else if (kind === nbdInfo.description) description = data.toString("utf8", 2);
    }
    if (sizeBytes === undefined) throw this.noNbd();
    const readOnly = (serverFlags & nbdTransmissionFlag.readOnly) !== 0;
    return { sizeBytes, flags: serverFlags, readOnly, description };
  }

  takeDescriptor(): number {
    const { _handle } = this.socket as Socket & { _handle: { readonly fd: number; readStop(): void } | null };
    if (_handle === null) throw new Error("the server closed the connection");
    _handle.readStop();
    const descriptor = duplicateDescriptor(_handle.fd);
    if (this.server.kind === "tcp") giveUpOnSilence(descriptor, silenceSeconds);
    return descriptor;
  }

  /** Closes Node's own descriptor; a duplicate keeps the connection alive. */
  end(): void {
    clearTimeout(this.timer);
    this.socket.destroy();
  }

  private sendOption(option: number, name: string): void {
    const nameBytes = Buffer.from(name, "utf8");
    const bytes = Buffer.alloc(16 + 6 + nameBytes.length + 2);
    bytes.write("IHAVEOPT", 0, "latin1");
    bytes.writeUInt32BE(option, 8);
    bytes.writeUInt32BE(bytes.length - 16, 12);
    bytes.writeUInt32BE(nameBytes.length, 16);
    nameBytes.copy(bytes, 20);
    bytes.writeUInt16BE(1, 20 + nameBytes.length);
    bytes.writeUInt16BE(nbdInfo.description, 22 + nameBytes.length);
    this.socket.write(bytes);
  }

  private async take(bytes: number): Promise<Buffer> {
    while (this.held.length < bytes) {
      if (this.failure !== undefined) throw this.failure;
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
    const taken = this.held.subarray(0, bytes);
    this.held = this.held.subarray(bytes);
    return taken;
  }

  private fail(cause: Error): void {
    this.failure ??= cause;
    this.wake();
  }

  private noNbd(): VarveError {
    const server = addressText(this.server);
    return new VarveError("NotAnNbdServerError", "Invalid", `${server} does not speak NBD as Varve does`, {
      hint: "Is that the NBD address of varve up, and not the one of its HTTP API?",
      fields: { server },
    });
  }
}

function refused(server: ListenAddress, name: string, type: number, text: string): VarveError {
  const unknown = type === nbdOptionReply.unknown;
  const later = type === nbdOptionReply.shutdown;
  const why = text === "" ? `refused with 0x${type.toString(16)}` : text;
  return new VarveError(
    unknown ? "UnknownExportError" : "ExportRefusedError",
    later ? "Retry" : "Invalid",
    `${addressText(server)} does not serve ${name}: ${why}`,
    {
      hint: unknown
        ? "varve volume list shows the volumes, varve history VOLUME its points."
        : later
          ? "Try again in a moment, or wait for it: --wait SECONDS."
          : "",
      fields: { server: addressText(server), export: name },
    },
  );
}
