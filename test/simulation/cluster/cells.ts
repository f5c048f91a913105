/*
 * Self-describing blocks: a disk as cells of 512 bytes, each written whole, each saying which cell of which serial it is. Serials of a
 * cell count its writes and trims; one client writes a cell, one write after the other. Used by clients and the oracle.
 */

export const cellBytes = 512;
const magic = 0x5643_454c;

/** What stands in a cell: the serial of the write, 0 for zeroes, or why it is neither. */
export function cellSerial(bytes: Buffer, cell: number, at: number): number | string {
  if (bytes.readUInt32LE(at) === magic) {
    const serial = bytes.readUInt32LE(at + 8);
    if (bytes.readUInt32LE(at + 4) !== cell) {
      return `cell ${cell} holds cell ${bytes.readUInt32LE(at + 4)}, serial ${serial}`;
    }
    for (let index = 12; index < cellBytes; index += 4) {
      if (bytes.readUInt32LE(at + index) !== word(cell, serial, index)) return `cell ${cell} is torn`;
    }
    return serial;
  }
  for (let index = 0; index < cellBytes; index += 4) {
    if (bytes.readUInt32LE(at + index) !== 0) return `cell ${cell} holds bytes that nobody wrote`;
  }
  return 0;
}

export function fillCell(bytes: Buffer, at: number, cell: number, serial: number): void {
  bytes.writeUInt32LE(magic, at);
  bytes.writeUInt32LE(cell, at + 4);
  bytes.writeUInt32LE(serial, at + 8);
  for (let index = 12; index < cellBytes; index += 4) {
    bytes.writeUInt32LE(word(cell, serial, index), at + index);
  }
}

function word(cell: number, serial: number, index: number): number {
  return (
    (Math.imul(cell + 1, 0x9e3779b1) ^ Math.imul(serial, 0x85ebca6b) ^ Math.imul(index, 0xc2b2ae35)) >>> 0
  );
}
