/*
 * Bytes of generic netlink for the kernel's nbd family (docs/specs/attach.md, "Messages"): requests, answers and the event of a
 * dead link. Pure. The kernel speaks in the byte order of the machine: little-endian on all that Varve runs on. Called by
 * netlink-socket.ts and kernel-nbd.ts; attributes are padded to four bytes, lengths leave the padding out.
 */

export const messageType = { error: 2, control: 16 } as const;
export const controlCommand = { getFamily: 3 } as const;
export const controlAttribute = { familyId: 1, familyName: 2, groups: 7, groupName: 1, groupId: 2 } as const;

export const nbdNetlinkCommand = { connect: 1, disconnect: 2, reconfigure: 3, linkDead: 4 } as const;
export const nbdAttribute = {
  index: 1,
  sizeBytes: 2,
  blockBytes: 3,
  timeoutSeconds: 4,
  serverFlags: 5,
  sockets: 7,
  deadConnectionSeconds: 8,
} as const;

const nested = 0x8000;
const typeMask = 0x3fff;
const requestAndAcknowledge = 5;
const messageHeaderBytes = 16;
const genericHeaderBytes = 4;

/** One message as it came: the type of its family, the command, and its attributes still packed. */
export interface NetlinkMessage {
  readonly type: number;
  readonly command: number;
  readonly attributes: Buffer;
  /** Of an acknowledgement (type error): 0, or a negated errno. */
  readonly errno: number;
}

export function attribute(type: number, data: Uint8Array): Buffer {
  const bytes = Buffer.alloc(padded(4 + data.length));
  bytes.writeUInt16LE(4 + data.length, 0);
  bytes.writeUInt16LE(type, 2);
  bytes.set(data, 4);
  return bytes;
}

export function uint32Attribute(type: number, value: number): Buffer {
  const data = Buffer.alloc(4);
  data.writeUInt32LE(value, 0);
  return attribute(type, data);
}

export function uint64Attribute(type: number, value: number): Buffer {
  const data = Buffer.alloc(8);
  data.writeBigUInt64LE(BigInt(value), 0);
  return attribute(type, data);
}

export function textAttribute(type: number, text: string): Buffer {
  return attribute(type, Buffer.from(`${text}\0`, "utf8"));
}

/** The list of sockets that CONNECT and RECONFIGURE take over. */
export function socketsAttribute(descriptors: readonly number[]): Buffer {
  const items = descriptors.map((descriptor) => attribute(1 | nested, uint32Attribute(1, descriptor)));
  return attribute(nbdAttribute.sockets | nested, Buffer.concat(items));
}

/** A request that asks for an acknowledgement. */
export function encodeNetlinkRequest(
  family: number,
  command: number,
  sequence: number,
  attributes: readonly Uint8Array[],
): Buffer {
  const body = Buffer.concat(attributes);
  const bytes = Buffer.alloc(messageHeaderBytes + genericHeaderBytes + body.length);
  bytes.writeUInt32LE(bytes.length, 0);
  bytes.writeUInt16LE(family, 4);
  bytes.writeUInt16LE(requestAndAcknowledge, 6);
  bytes.writeUInt32LE(sequence, 8);
  bytes[16] = command;
  bytes[17] = 1;
  body.copy(bytes, 20);
  return bytes;
}

/** The messages of one datagram. A length that does not fit ends the list: nothing behind it can be trusted. */
export function decodeNetlinkMessages(datagram: Buffer): NetlinkMessage[] {
  const messages: NetlinkMessage[] = [];
  let at = 0;
  while (datagram.length - at >= messageHeaderBytes + genericHeaderBytes) {
    const length = datagram.readUInt32LE(at);
    if (length < messageHeaderBytes + genericHeaderBytes || length > datagram.length - at) break;
    const type = datagram.readUInt16LE(at + 4);
    const isError = type === messageType.error;
    messages.push({
      type,
      command: isError ? 0 : (datagram[at + 16] ?? 0),
      attributes: isError ? Buffer.alloc(0) : datagram.subarray(at + 20, at + length),
      errno: isError ? datagram.readInt32LE(at + 16) : 0,
    });
    at += padded(length);
  }
  return messages;
}

/** Attributes by type, without the flags that the type carries. Where one stands twice the last counts. */
export function decodeAttributes(bytes: Buffer): Map<number, Buffer> {
  return new Map(attributeList(bytes));
}

export function attributeList(bytes: Buffer): [number, Buffer][] {
  const found: [number, Buffer][] = [];
  let at = 0;
  while (bytes.length - at >= 4) {
    const length = bytes.readUInt16LE(at);
    if (length < 4 || length > bytes.length - at) break;
    found.push([bytes.readUInt16LE(at + 2) & typeMask, bytes.subarray(at + 4, at + length)]);
    at += padded(length);
  }
  return found;
}

/** The family's number and the number of its first multicast group, out of GETFAMILY's answer; null where they are missing. */
export function decodeFamily(attributes: Buffer): { readonly family: number; readonly group: number } | null {
  const fields = decodeAttributes(attributes);
  const id = fields.get(controlAttribute.familyId);
  const [first] = attributeList(fields.get(controlAttribute.groups) ?? Buffer.alloc(0));
  const group = first === undefined ? undefined : decodeAttributes(first[1]).get(controlAttribute.groupId);
  if (id === undefined || id.length < 2 || group === undefined || group.length < 4) return null;
  return { family: id.readUInt16LE(0), group: group.readUInt32LE(0) };
}

/** The device that an answer or an event is about. */
export function decodeDeviceIndex(attributes: Buffer): number | null {
  const index = decodeAttributes(attributes).get(nbdAttribute.index);
  return index === undefined || index.length < 4 ? null : index.readUInt32LE(0);
}

const padded = (length: number): number => (length + 3) & ~3;
