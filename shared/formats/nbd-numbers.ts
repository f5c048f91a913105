/*
 * Numbers of the NBD protocol (docs/formats/nbd.md): magics, options, commands, flags, errno values. Big-endian on the wire.
 * Used by the other nbd-* codecs and by services/gateway/engine/nbd-*. The tests keep their own table, written apart.
 */

/** 64-bit magics as their two halves: they are compared and written as 32-bit words. */
export const nbdMagic = {
  helloHigh: 0x4e42444d,
  helloLow: 0x41474943,
  optionHigh: 0x49484156,
  optionLow: 0x454f5054,
  optionReplyHigh: 0x0003e889,
  optionReplyLow: 0x045565a9,
  request: 0x25609513,
  extendedRequest: 0x21e41c71,
  simpleReply: 0x67446698,
  structuredReply: 0x668e33ef,
  extendedReply: 0x6e8a278c,
} as const;

/** Handshake flags of the server; the client answers with the same two bits. */
export const nbdHandshakeFlag = { fixedNewstyle: 1, noZeroes: 2 } as const;

export const nbdOption = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
  extendedHeaders: 11,
} as const;

export const nbdOptionReply = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  unsupported: 0x80000001,
  policy: 0x80000002,
  invalid: 0x80000003,
  platform: 0x80000004,
  tlsRequired: 0x80000005,
  unknown: 0x80000006,
  shutdown: 0x80000007,
  tooBig: 0x80000009,
  extendedHeadersRequired: 0x8000000a,
} as const;

export type NbdOptionReplyNumber = (typeof nbdOptionReply)[keyof typeof nbdOptionReply];

export const nbdInfo = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

export const nbdTransmissionFlag = {
  hasFlags: 1,
  readOnly: 2,
  sendFlush: 4,
  sendFua: 8,
  sendTrim: 32,
  sendWriteZeroes: 64,
  sendDf: 128,
  canMultiConn: 256,
  sendCache: 1024,
  sendFastZero: 2048,
} as const;

export const nbdCommand = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
} as const;

export const nbdCommandFlag = {
  fua: 1,
  noHole: 2,
  dontFragment: 4,
  requestOne: 8,
  fastZero: 16,
  payloadLength: 32,
} as const;

export const nbdChunk = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  blockStatusExtended: 6,
  error: 0x8001,
  errorOffset: 0x8002,
} as const;

export const nbdChunkDone = 1;

/** What may stand in a reply's error field. */
export const nbdErrno = {
  none: 0,
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

/** Descriptor flags of base:allocation. */
export const nbdAllocation = { data: 0, holeAndZero: 3 } as const;

/** How replies look, by what was negotiated. Extended headers imply structured replies. */
export type NbdReplyStyle = "simple" | "structured" | "extended";
