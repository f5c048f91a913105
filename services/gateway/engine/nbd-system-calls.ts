/*
 * The libc calls that the NBD data path makes itself: sendmsg and recv on a connected socket, never waiting. Node's stream
 * needs several objects and a callback for each write; these need none (docs/adr/005-nbd-data-path.md has the figures).
 * Called by nbd-output.ts and nbd-connection.ts. Answers below zero are negated errno values.
 */
import koffi from "koffi";

const messageDontWait = 0x40;
const messageNoSignal = 0x4000;
const solSocket = 1;
const soSndbuf = 7;

/** errno values that these calls answer (Linux). */
export const systemErrno = { EAGAIN: 11, EINTR: 4 } as const;

/** Pieces of one gathered send; Linux takes 1024. */
export const gatheredPiecesMax = 256;

export interface SystemCalls {
  /** Sends from one place. Bytes taken, or a negated errno. */
  send(fd: number, address: number, length: number): number;
  /** Sends the pieces that were put by setPiece(0 … count - 1). Bytes taken, or a negated errno. */
  sendPieces(fd: number, count: number): number;
  setPiece(index: number, address: number, length: number): void;
  /** Receives into one place: bytes, 0 at the end of the stream, or a negated errno. */
  receive(fd: number, address: number, length: number): number;
  /** Asks for a send buffer of this size; the kernel gives what it allows. */
  setSendBuffer(fd: number, bytes: number): void;
}

const wordRange = 2 ** 32;

/** The calls of this system's libc. One per process is enough: each call is finished when it returns. */
export function loadSystemCalls(): SystemCalls {
  const libc = koffi.load(null);
  const send = libc.func("long send(int fd, uintptr_t data, size_t length, int flags)");
  const sendmsg = libc.func("long sendmsg(int fd, uintptr_t message, int flags)");
  const receive = libc.func("long recv(int fd, uintptr_t data, size_t length, int flags)");
  const setsockopt = libc.func("int setsockopt(int fd, int level, int name, void *value, uint32_t length)");
  const headerBytes = 64;
  const memory = koffi.alloc("uint8_t", headerBytes + 16 * gatheredPiecesMax);
  const address = Number(koffi.address(memory));
  const words = new Uint32Array(koffi.view(memory, headerBytes + 16 * gatheredPiecesMax));
  words.fill(0);
  const setPointer = (word: number, value: number): void => {
    words[word] = value % wordRange;
    words[word + 1] = Math.floor(value / wordRange);
  };
  // struct msghdr of 64-bit Linux: name, its length, the vector at byte 16, its length at byte 24.
  setPointer(4, address + headerBytes);
  const result = (returned: number): number => (returned >= 0 ? returned : -koffi.errno());
  return {
    send: (fd, data, length) => result(send(fd, data, length, messageDontWait | messageNoSignal)),
    sendPieces(fd, count) {
      words[6] = count;
      return result(sendmsg(fd, address, messageDontWait | messageNoSignal));
    },
    setPiece(index, data, length) {
      const word = headerBytes / 4 + 4 * index;
      setPointer(word, data);
      words[word + 2] = length;
      words[word + 3] = 0;
    },
    receive: (fd, data, length) => result(receive(fd, data, length, messageDontWait)),
    setSendBuffer(fd, bytes) {
      setsockopt(fd, solSocket, soSndbuf, new Int32Array([bytes]), 4);
    },
  };
}
