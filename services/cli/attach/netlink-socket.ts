/*
 * A generic netlink socket by libc: one request at a time with its acknowledgement, or the events of a multicast group. Also the
 * few calls on NBD sockets that Node does not offer (a second descriptor, shutting down a link, giving up on a silent peer).
 * Called by kernel-nbd.ts and export-link.ts. The protocol's bytes: netlink-message.ts.
 */
import koffi from "koffi";
import { VarveError } from "#shared/domain/errors.ts";
import { library } from "#shared/native/library.ts";
import {
  decodeNetlinkMessages,
  encodeNetlinkRequest,
  messageType,
  type NetlinkMessage,
} from "./netlink-message.ts";

const socket = library.func("int socket(int domain, int type, int protocol)");
const bind = library.func("int bind(int fd, void *address, uint32_t length)");
const send = library.func("long send(int fd, void *data, size_t length, int flags)");
const receive = library.func("long recv(int fd, _Out_ uint8_t *data, size_t length, int flags)");
const setsockopt = library.func("int setsockopt(int fd, int level, int name, void *value, uint32_t length)");
const duplicate = library.func("int fcntl(int fd, int command, int argument)");
const shutdown = library.func("int shutdown(int fd, int how)");
const close = library.func("int close(int fd)");

const netlinkFamily = 16;
const rawCloseOnExec = 3 | 0x80000;
const genericNetlink = 16;
const solSocket = 1;
const receiveTimeout = 20;
const solNetlink = 270;
const addMembership = 1;
const tcp = 6;
const duplicateCloseOnExec = 1030;
const wouldBlock = 11;
const interrupted = 4;
/** The kernel answers at once, unless another program sits on the same device. */
const answerSeconds = 10;
/** How often a listener looks at the rest of the world. */
export const eventWaitSeconds = 1;
const datagramBytes = 64 * 1024;

/** A netlink call failed. `errno` is positive. */
export class NetlinkError extends VarveError {
  readonly errno: number;
  constructor(operation: string, errno: number) {
    super("NetlinkError", "Internal", `netlink ${operation}: errno ${errno}`, {
      hint: "The kernel's messages may say more: dmesg.",
      fields: { operation, errno },
    });
    this.errno = errno;
  }
}

export class NetlinkSocket {
  private readonly fd: number;
  private sequence = 0;

  constructor(receiveSeconds = answerSeconds) {
    this.fd = socket(netlinkFamily, rawCloseOnExec, genericNetlink) as number;
    if (this.fd < 0) throw new NetlinkError("socket", koffi.errno());
    const address = Buffer.alloc(12);
    address.writeUInt16LE(netlinkFamily, 0);
    if ((bind(this.fd, address, address.length) as number) < 0) {
      throw new NetlinkError("bind", koffi.errno());
    }
    const wait = Buffer.alloc(16);
    wait.writeBigInt64LE(BigInt(receiveSeconds), 0);
    setsockopt(this.fd, solSocket, receiveTimeout, wait, wait.length);
  }

  /** Sends a request and returns the messages that came before its acknowledgement. Throws NetlinkError for a refusal. */
  call(
    operation: string,
    family: number,
    command: number,
    attributes: readonly Uint8Array[],
  ): NetlinkMessage[] {
    this.sequence += 1;
    const request = encodeNetlinkRequest(family, command, this.sequence, attributes);
    if ((send(this.fd, request, request.length, 0) as number) < 0) {
      throw new NetlinkError(operation, koffi.errno());
    }
    const answers: NetlinkMessage[] = [];
    for (;;) {
      const datagram = Buffer.alloc(datagramBytes);
      const bytes = receive(this.fd, datagram, datagram.length, 0) as number;
      if (bytes < 0 && koffi.errno() === interrupted) continue;
      if (bytes < 0) throw new NetlinkError(operation, koffi.errno());
      for (const message of decodeNetlinkMessages(datagram.subarray(0, bytes))) {
        if (message.type !== messageType.error) answers.push(message);
        else if (message.errno === 0) return answers;
        else throw new NetlinkError(operation, -message.errno);
      }
    }
  }

  join(group: number): void {
    const number = Buffer.alloc(4);
    number.writeUInt32LE(group, 0);
    if ((setsockopt(this.fd, solNetlink, addMembership, number, 4) as number) < 0) {
      throw new NetlinkError("join", koffi.errno());
    }
  }

  /** The next events, or none when the receive time-out passed. Waits off the main thread. */
  async events(): Promise<NetlinkMessage[]> {
    const datagram = Buffer.alloc(datagramBytes);
    const { bytes, errno } = await new Promise<{ bytes: number; errno: number }>((resolve, reject) => {
      receive.async(this.fd, datagram, datagram.length, 0, (cause: unknown, result: number) => {
        if (cause) reject(cause instanceof Error ? cause : new Error("recv failed"));
        else resolve({ bytes: result, errno: result < 0 ? koffi.errno() : 0 });
      });
    });
    if (bytes >= 0) return decodeNetlinkMessages(datagram.subarray(0, bytes));
    // errno of a call on another thread is not always told: silence and a real failure look alike, and both mean "look around".
    if (errno !== 0 && errno !== wouldBlock && errno !== interrupted) {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    return [];
  }

  close(): void {
    close(this.fd);
  }
}

/** A second descriptor of the same socket, which outlives Node's own. */
export function duplicateDescriptor(fd: number): number {
  const copy = duplicate(fd, duplicateCloseOnExec, 0) as number;
  if (copy < 0) throw new NetlinkError("fcntl(F_DUPFD_CLOEXEC)", koffi.errno());
  return copy;
}

/** Ends the connection for every holder of it, the kernel's block device too. */
export function shutdownDescriptor(fd: number): void {
  shutdown(fd, 2);
}

export function closeDescriptor(fd: number): void {
  close(fd);
}

/** A peer that vanished without a word (power, cable) ends the link after `seconds`, idle or not. */
export function giveUpOnSilence(fd: number, seconds: number): void {
  const set = (level: number, name: number, value: number): void => {
    const number = Buffer.alloc(4);
    number.writeInt32LE(value, 0);
    setsockopt(fd, level, name, number, 4);
  };
  set(solSocket, 9, 1); // SO_KEEPALIVE
  set(tcp, 4, Math.max(1, seconds - 3)); // TCP_KEEPIDLE, then three probes
  set(tcp, 5, 1); // TCP_KEEPINTVL
  set(tcp, 6, 3); // TCP_KEEPCNT
  set(tcp, 18, seconds * 1000); // TCP_USER_TIMEOUT
}
