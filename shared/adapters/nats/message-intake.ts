/*
 * Bytes of a NATS connection, from the socket to the client library's parser: cut where a message ends, each large message in one piece
 * and in memory of its own, received where it stays. The parser would copy a message that comes in pieces three times and more.
 * Knows of the protocol only lines, and that a line MSG or HMSG ends with the bytes that follow it. Owned by message-transport.ts.
 */
import { largeMessageBytes, type MessageMemory } from "#shared/memory/message-memory.ts";

const slabBytes = 256 * 1024;
const readBytesMin = 8 * 1024;
const readBytesMax = 64 * 1024;
/** No message is larger, nor any line: whatever says so goes to the parser as it comes, which refuses it. */
const messageBytesMax = 64 * 1024 * 1024;
const newline = 0x0a;

export class MessageIntake {
  readonly #memory: MessageMemory;
  readonly #handOn: (bytes: Uint8Array) => void;
  #slab = Buffer.allocUnsafeSlow(slabBytes);
  /** Bytes [from, at) of the slab came and were not handed on. Those before are the parser's. */
  #from = 0;
  #at = 0;
  /** A large message, as far as it came. */
  #large: { readonly bytes: Uint8Array; at: number } | null = null;
  #unframed = false;
  /** A large message is often followed by the next one: its beginning only is read into the slab. */
  #readBytes = readBytesMax;

  constructor(memory: MessageMemory, handOn: (bytes: Uint8Array) => void) {
    this.#memory = memory;
    this.#handOn = handOn;
  }

  /** Where the next bytes shall land. */
  space(): Uint8Array {
    if (this.#large !== null) return this.#large.bytes.subarray(this.#large.at);
    if (this.#slab.length - this.#at < readBytesMin) this.#renew(readBytesMin);
    return this.#slab.subarray(this.#at, this.#at + this.#readBytes);
  }

  /** So many landed there. */
  landed(count: number): void {
    const large = this.#large;
    if (large === null) {
      this.#at += count;
      this.#cut();
      return;
    }
    large.at += count;
    if (large.at < large.bytes.length) return;
    this.#large = null;
    this.#readBytes = readBytesMin;
    this.#handOn(large.bytes);
  }

  #cut(): void {
    let end = this.#from;
    while (end < this.#at && !this.#unframed) {
      const lineEnd = this.#slab.subarray(0, this.#at).indexOf(newline, end) + 1;
      const next = lineEnd === 0 ? this.#at : lineEnd + this.#bytesBehind(end, lineEnd);
      if (next - end > messageBytesMax) this.#unframed = true;
      else if (lineEnd === 0) break;
      else if (next > this.#at) {
        this.#pass(end);
        this.#wait(next);
        return;
      } else end = next;
    }
    this.#readBytes = readBytesMax;
    this.#pass(this.#unframed ? this.#at : end);
  }

  /** Payload and its end, for a line that announces one. */
  #bytesBehind(start: number, end: number): number {
    const first = (this.#slab[start] ?? 0) | 0x20;
    if (first !== 0x6d && first !== 0x68) return 0;
    const line = this.#slab.toString("latin1", start, end).trimEnd();
    const size = line.slice(line.lastIndexOf(" ") + 1);
    return /^[0-9]{1,9}$/.test(size) ? Number(size) + 2 : messageBytesMax;
  }

  #pass(end: number): void {
    if (end > this.#from) this.#handOn(this.#slab.subarray(this.#from, end));
    this.#from = end;
  }

  /** What begins at `from` ends at `next`, of which not all has come. */
  #wait(next: number): void {
    const came = this.#at - this.#from;
    const bytes = next - this.#from;
    if (bytes < largeMessageBytes) {
      if (next > this.#slab.length) this.#renew(bytes);
      return;
    }
    const large = this.#memory.take(bytes);
    large.set(this.#slab.subarray(this.#from, this.#at));
    // Nobody has seen them.
    this.#at = this.#from;
    this.#large = { bytes: large, at: came };
  }

  /** The slab's end is the parser's for as long as somebody keeps a message. */
  #renew(roomBytes: number): void {
    const kept = this.#slab.subarray(this.#from, this.#at);
    const slab = Buffer.allocUnsafeSlow(Math.max(slabBytes, 2 * (kept.length + roomBytes)));
    kept.copy(slab);
    this.#slab = slab;
    this.#from = 0;
    this.#at = kept.length;
  }
}
